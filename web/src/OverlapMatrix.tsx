/** How far masks overlap, each with each: a table of percentages, tinted by how far they are from chance. */
import { type Bits, keptChannels, mean, overlapPerLayer } from "./channels.ts";
import { percent } from "./format.ts";
import { Scroll } from "./Scroll.tsx";

interface MatrixProps {
  /** What each mask is called, in order. */
  names: readonly string[];
  masks: readonly Bits[];
  dFfn: number;
  /** A pair that is shown elsewhere, and what to do when another is chosen. */
  chosen?: readonly [number, number];
  onChoose?: (pair: [number, number]) => void;
}

/** Share of the channels that a mask keeps: what another one shares with it by chance. */
export const keptShareOf = (mask: Bits, dFfn: number): number =>
  mean(mask.map((bits) => keptChannels(bits).length / dFfn));

export function OverlapMatrix({ names, masks, dFfn, chosen, onChoose }: MatrixProps) {
  const chances = masks.map((mask) => keptShareOf(mask, dFfn));
  const [least, most] = [Math.min(...chances), Math.max(...chances)];
  const chance = percent(least) === percent(most) ? percent(least) : `${percent(least)} to ${percent(most)}, by column`;
  return (
    <>
      <p class="note">
        Per cent of the channels of a row's mask that the column's mask keeps too, mean over the layers. By chance:{" "}
        {chance}.{onChoose && " Choose a cell to see that pair below."}
      </p>
      <Scroll label="Overlaps">
        <table class="heat">
          <thead>
            <tr>
              <td />
              {names.map((name, j) => (
                <th key={j} scope="col" aria-label={`${j + 1}: ${name}`} title={name}>
                  {j + 1}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {names.map((name, i) => (
              <tr key={i}>
                <th scope="row" class="heat-row">
                  {i + 1} <span class="heat-name">{name}</span>
                </th>
                {names.map((_, j) => {
                  const share = mean(overlapPerLayer(masks[i]!, masks[j]!));
                  const above = chances[j]! < 1 ? Math.max(0, (share - chances[j]!) / (1 - chances[j]!)) : 0;
                  const text = Math.round(share * 100);
                  const isChosen = i !== j && chosen?.includes(i) && chosen.includes(j);
                  return (
                    <td key={j} class="heat-cell" style={{ "--above": above }}>
                      {onChoose && i !== j ? (
                        <button
                          type="button"
                          aria-pressed={isChosen}
                          aria-label={`${i + 1} and ${j + 1}: ${text} per cent`}
                          onClick={() => onChoose([i, j])}
                        >
                          {text}
                        </button>
                      ) : (
                        text
                      )}
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </>
  );
}
