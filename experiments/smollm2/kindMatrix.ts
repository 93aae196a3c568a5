/** The own–foreign matrix: every kind of prompt under the masks of every kind. */

/** For each prompt the index of one of the kind that comes `offset` kinds later, round and round: of that kind the one at the same place, as far as there are as many. */
export function partnersOf(kindOf: readonly string[], offset: number): number[] {
  const members = [...new Set(kindOf)].map((kind) => [...kindOf.keys()].filter((i) => kindOf[i] === kind));
  const partners: number[] = [];
  members.forEach((own, kind) => {
    const others = members[(kind + offset) % members.length]!;
    own.forEach((prompt, place) => {
      partners[prompt] = others[place % others.length]!;
    });
  });
  return partners;
}

type ByKind = Readonly<Record<string, { kl: number }>>;

/**
 * @param kindOf the kind of each prompt
 * @param own KL by kind, each prompt under its own mask
 * @param measure the same with each prompt under the mask of its partner; once for every kind but one
 * @returns row: the kind of the prompts, column: that of the masks, in order of first appearance. [kinds, kinds]
 */
export async function kindMatrix(
  kindOf: readonly string[],
  own: ByKind,
  measure: (partners: readonly number[]) => Promise<ByKind>,
): Promise<number[][]> {
  const kinds = [...new Set(kindOf)];
  const matrix = kinds.map(() => new Array<number>(kinds.length));
  for (const offset of kinds.keys()) {
    const byKind = offset === 0 ? own : await measure(partnersOf(kindOf, offset));
    for (const [i, kind] of kinds.entries()) matrix[i]![(i + offset) % kinds.length] = byKind[kind]!.kl;
  }
  return matrix;
}
