/** Instructions beside each other: how far their masks overlap, each with each, and of a pair where they differ, beside what chance would share. */
import { useMemo, useRef, useState } from "preact/hooks";
import { makeMask, type PageMask, type ServedModel } from "../api.ts";
import { type Bits, decodeLayers, mean, overlapPerLayer, type PerChannel, shareKeeping } from "../channels.ts";
import { percent } from "../format.ts";
import { Icon } from "../icons.tsx";
import { MaskStrip, StripLegend } from "../MaskStrip.tsx";
import { keptShareOf, OverlapMatrix } from "../OverlapMatrix.tsx";
import { Empty, Failure, KeepChoice } from "../parts.tsx";
import { keptShare } from "../settings.ts";
import { useHeld, useKept } from "../store.ts";

/** More would be a matrix that nobody reads. */
const maxInstructions = 8;

interface Compared {
  instructions: string[];
  masks: PageMask[];
}

export function Compare({ model }: { model: ServedModel }) {
  const [texts, setTexts] = useKept<string[]>("compare", ["", ""]);
  const [result, setResult] = useHeld<Compared>(`compared.${model.id}`);
  const [error, setError] = useState<unknown>();
  const [isWaiting, setIsWaiting] = useState(false);
  const latest = useRef(0);

  const compare = async (event?: Event) => {
    event?.preventDefault();
    const turn = ++latest.current;
    setIsWaiting(true);
    setError(undefined);
    try {
      const masks = await Promise.all(
        texts.map((instruction) => makeMask({ model: model.id, instruction, ...keptShare() })),
      );
      if (turn === latest.current) setResult({ instructions: texts, masks });
    } catch (failure) {
      if (turn === latest.current) setError(failure);
    }
    if (turn === latest.current) setIsWaiting(false);
  };
  return (
    <div class="page">
      <form class="instructions" onSubmit={compare}>
        {texts.map((text, i) => (
          <div key={i} class="instruction">
            <label class="field tall">
              <span>Instruction {i + 1}</span>
              <textarea
                rows={2}
                required
                value={text}
                onInput={(event) => setTexts(texts.with(i, event.currentTarget.value))}
                onKeyDown={(event) => {
                  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
                  event.preventDefault();
                  event.currentTarget.form!.requestSubmit();
                }}
              />
            </label>
            {texts.length > 2 && (
              <button
                type="button"
                class="quiet"
                aria-label={`Remove instruction ${i + 1}`}
                title="Remove"
                onClick={() => setTexts(texts.toSpliced(i, 1))}
              >
                <Icon name="trash" />
              </button>
            )}
          </div>
        ))}
        <div class="form-row">
          <button
            type="button"
            class="button"
            disabled={texts.length === maxInstructions}
            onClick={() => setTexts([...texts, ""])}
          >
            <Icon name="plus" /> Another instruction
          </button>
          <KeepChoice model={model} />
          <button type="submit" class="button primary" disabled={isWaiting}>
            {isWaiting ? "Comparing …" : "Compare"}
          </button>
        </div>
      </form>
      {error !== undefined && <Failure error={error} retry={compare} />}
      {result ? (
        <Comparison key={result.masks.map(({ info }) => info.id).join()} {...result} />
      ) : (
        error === undefined && (
          <Empty title="What do instructions share?">
            <p>
              Each gets a mask of its own. Two wordings of one task should share most of their channels; two tasks about
              as many as chance, which is the share that masks keep.
            </p>
          </Empty>
        )
      )}
    </div>
  );
}

function Comparison({ instructions, masks }: Compared) {
  const [pair, setPair] = useState<[number, number]>([0, 1]);
  const bits = useMemo(() => masks.map(({ layers }) => decodeLayers(layers)), [masks]);
  const { dFfn } = masks[0]!.info;
  if (masks.every(({ info }) => info.tFfn === dFfn)) {
    return (
      <p class="note" role="status">
        These masks keep every channel, so there is nothing to compare. Choose under Keep how much of the model they
        keep.
      </p>
    );
  }
  return (
    <section class="comparison" aria-label="Comparison">
      {masks.length > 2 && (
        <>
          <h2>Overlap of all</h2>
          <OverlapMatrix names={instructions} masks={bits} dFfn={dFfn} chosen={pair} onChoose={setPair} />
        </>
      )}
      <Pair instructions={instructions} bits={bits} dFfn={dFfn} pair={pair} />
    </section>
  );
}

interface PairProps {
  instructions: readonly string[];
  bits: readonly Bits[];
  dFfn: number;
  pair: readonly [number, number];
}

function Pair({ instructions, bits, dFfn, pair: [i, j] }: PairProps) {
  const [a, b] = [bits[i]!, bits[j]!];
  const overlap = overlapPerLayer(a, b);
  const chance = keptShareOf(b, dFfn);
  const total = mean(overlap);
  const keptBy = useMemo(
    () => new Map([i, j].map((one): [number, PerChannel] => [one, shareKeeping([bits[one]!], a.length, dFfn)])),
    [bits, i, j],
  );
  return (
    <>
      {bits.length > 2 && (
        <h2>
          Instructions {i + 1} and {j + 1}
        </h2>
      )}
      <p class="total">
        <strong>{percent(total)}</strong> of the kept channels are shared; by chance it would be {percent(chance)}.
      </p>
      {[i, j].map((one) => (
        <figure key={one}>
          <figcaption>{instructions[one]}</figcaption>
          <MaskStrip
            layers={bits[one]!}
            dFfn={dFfn}
            common={keptBy.get(one === i ? j : i)}
            describe={(share) =>
              share === 1 ? "kept by both" : share === 0 ? "only here" : `${percent(share)} of them by both`
            }
            label={`Mask of instruction ${one + 1}. Up and down walk through the layers, left and right within one.`}
          />
        </figure>
      ))}
      <StripLegend low="kept by both" high="only by this one" />
      <h2>Which layers differ</h2>
      <p class="note">{mostDifferent(overlap)}</p>
      <table class="bars">
        <thead>
          <tr>
            <th scope="col">Layer</th>
            <th scope="col">
              <span class="chance-key">chance {percent(chance)}</span>
            </th>
            <th scope="col">Shared</th>
          </tr>
        </thead>
        <tbody>
          {overlap.map((share, layer) => (
            <BarRow key={layer} name={String(layer)} share={share} chance={chance} />
          ))}
        </tbody>
        <tfoot>
          <BarRow name="All" share={total} chance={chance} />
        </tfoot>
      </table>
    </>
  );
}

/** `Layer 12 differs most (41 % shared), layer 0 least (88 %).` */
function mostDifferent(overlap: readonly number[]): string {
  if (Math.max(...overlap) === Math.min(...overlap)) return "All layers share as much.";
  const order = overlap.map((_, layer) => layer).sort((a, b) => overlap[a]! - overlap[b]!);
  const [first, last] = [order[0]!, order.at(-1)!];
  return `Layer ${first} differs most (${percent(overlap[first]!)} shared), layer ${last} least (${percent(overlap[last]!)}).`;
}

function BarRow({ name, share, chance }: { name: string; share: number; chance: number }) {
  return (
    <tr>
      <th scope="row">{name}</th>
      <td class="bar-cell">
        <span class="bar" style={{ width: `${share * 100}%` }} />
        <span class="chance" style={{ left: `${chance * 100}%` }} />
      </td>
      <td>{percent(share)}</td>
    </tr>
  );
}
