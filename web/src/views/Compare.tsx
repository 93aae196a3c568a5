/** Two instructions: their masks one above the other, and how much they share, beside what chance would. */
import { useRef, useState } from "preact/hooks";
import { makeMask, type PageMask, type ServedModel } from "../api.ts";
import { type Bits, decodeLayers, mean, overlapPerLayer, type PerChannel, shareKeeping } from "../channels.ts";
import { percent } from "../format.ts";
import { MaskStrip, StripLegend } from "../MaskStrip.tsx";
import { Empty, Failure, KeepChoice, useKept } from "../parts.tsx";
import { keptShare } from "../settings.ts";

interface Compared {
  instructions: [string, string];
  masks: [PageMask, PageMask];
}

export function Compare({ model }: { model: ServedModel }) {
  const [texts, setTexts] = useKept<[string, string]>("compare", ["", ""]);
  const [result, setResult] = useState<Compared>();
  const [error, setError] = useState<unknown>();
  const [isWaiting, setIsWaiting] = useState(false);
  const latest = useRef(0);

  const compare = async (event?: Event) => {
    event?.preventDefault();
    const turn = ++latest.current;
    setIsWaiting(true);
    setError(undefined);
    try {
      const [first, second] = await Promise.all(
        texts.map((instruction) => makeMask({ model: model.id, instruction, ...keptShare() })),
      );
      if (turn === latest.current) setResult({ instructions: texts, masks: [first!, second!] });
    } catch (failure) {
      if (turn === latest.current) setError(failure);
    }
    if (turn === latest.current) setIsWaiting(false);
  };
  return (
    <div class="page">
      <form class="pair" onSubmit={compare}>
        {(["First", "Second"] as const).map((name, i) => (
          <label key={name} class="field tall">
            <span>{name} instruction</span>
            <textarea
              rows={3}
              required
              value={texts[i]}
              onInput={(event) => setTexts(texts.with(i, event.currentTarget.value) as [string, string])}
              onKeyDown={(event) => {
                if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
                event.preventDefault();
                event.currentTarget.form!.requestSubmit();
              }}
            />
          </label>
        ))}
        <KeepChoice model={model} />
        <button type="submit" class="button primary" disabled={isWaiting}>
          {isWaiting ? "Comparing …" : "Compare"}
        </button>
      </form>
      {error !== undefined && <Failure error={error} retry={compare} />}
      {result ? (
        <Comparison {...result} />
      ) : (
        error === undefined && (
          <Empty title="What do two instructions share?">
            <p>
              Each gets its own {model.tFfn} of {model.dFfn} channels per layer. Two wordings of one task should share
              most of them; two tasks about as many as chance, {percent(model.tFfn / model.dFfn)}.
            </p>
          </Empty>
        )
      )}
    </div>
  );
}

function Comparison({ instructions, masks }: Compared) {
  const { tFfn, dFfn } = masks[0].info;
  const bits = masks.map(({ layers }) => decodeLayers(layers)) as [Bits, Bits];
  const overlap = overlapPerLayer(...bits);
  const chance = tFfn / dFfn;
  const total = mean(overlap);
  const keptBy = (i: 0 | 1): PerChannel => shareKeeping([bits[i]], bits[i].length, dFfn);
  return (
    <section class="comparison" aria-label="Comparison">
      <p class="total">
        <strong>{percent(total)}</strong> of the kept channels are shared; by chance it would be {percent(chance)}.
      </p>
      {([0, 1] as const).map((i) => (
        <figure key={i}>
          <figcaption>{instructions[i]}</figcaption>
          <MaskStrip
            layers={bits[i]}
            dFfn={dFfn}
            common={keptBy(i === 0 ? 1 : 0)}
            describe={(share) => (share > 0 ? "kept by both" : "only here")}
            label={`Mask of the ${i === 0 ? "first" : "second"} instruction. Arrow keys walk through the layers.`}
          />
        </figure>
      ))}
      <StripLegend low="kept by both" high="only by this one" />
      <h2>Shared channels per layer</h2>
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
    </section>
  );
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
