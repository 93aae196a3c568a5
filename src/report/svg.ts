/**
 * Drawings, each one SVG file that stands alone: no script, no outside resource, light or dark as the reader's system asks. They are drawn to be read
 * at their own width, 800 pixels.
 */
import { escapeHtml } from "./chart.ts";
import { palette } from "./style.ts";

export const WIDTH = 800;
export const MARGIN = 20;
const TITLE_HEIGHT = 34;

// Text

const SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";

interface TextOptions {
  /** Class of the style sheet; `paper`: for what stands on a dark ground in the light scheme, and the reverse. */
  as?: "title" | "soft" | "small" | "tiny" | "strong" | "paper";
  anchor?: "start" | "middle" | "end";
  /** Degrees about its point. */
  turn?: number;
}

export function text(x: number, y: number, content: string, { as, anchor = "start", turn }: TextOptions = {}): string {
  const attributes = [
    as ? ` class="${as}"` : "",
    anchor === "start" ? "" : ` text-anchor="${anchor}"`,
    turn === undefined ? "" : ` transform="rotate(${turn} ${round(x)} ${round(y)})"`,
  ].join("");
  return `<text x="${round(x)}" y="${round(y)}" dy="0.35em"${attributes}>${escapeHtml(content)}</text>`;
}

/** About how wide a text is: fonts are the reader's, so rather too wide. */
export const textWidth = (content: string, size: number): number => content.length * size * 0.56;

/** Words on as few lines as fit, a long word on its own. */
export function wrap(content: string, width: number, size: number): string[] {
  const lines: string[] = [];
  for (const word of content.split(/\s+/)) {
    const longer = `${lines.at(-1) ?? ""} ${word}`;
    if (lines.length > 0 && textWidth(longer, size) <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}

export const round = (value: number): number => Math.round(value * 10) / 10;

export function line(x1: number, y1: number, x2: number, y2: number, name: string): string {
  return `<line x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}" class="${name}"/>`;
}

// The document

/** Steps of a heat map's colours. */
export const HEAT_STEPS = 32;
/** From a share of 0 to 1, by even steps. */
const heatStops = {
  light: ["#f4f7fb", "#b9d3ee", "#5f9bd8", "#2460ab", "#0c2a55"],
  dark: ["#161b23", "#17395f", "#2a6bb0", "#74b0ea", "#eaf4ff"],
} as const;

function heatColour(stops: readonly string[], share: number): string {
  const place = share * (stops.length - 1);
  const below = Math.min(Math.floor(place), stops.length - 2);
  const channels = [1, 3, 5].map((at) => {
    const [from, to] = [stops[below]!, stops[below + 1]!].map((stop) => Number.parseInt(stop.slice(at, at + 2), 16));
    return Math.round(from! + (to! - from!) * (place - below));
  });
  return `#${channels.map((channel) => channel.toString(16).padStart(2, "0")).join("")}`;
}

/** Rules with plain colours, no variables: converters that know no media queries still draw the light scheme. */
function colourRules(scheme: "light" | "dark", hasHeat: boolean): string {
  const { ink, soft, rule, series } = palette[scheme];
  const heat = Array.from(
    { length: hasHeat ? HEAT_STEPS : 0 },
    (_, step) => `.h${step}{fill:${heatColour(heatStops[scheme], step / (HEAT_STEPS - 1))}}`,
  );
  return [
    `.paper{fill:${scheme === "light" ? "#ffffff" : "#0d1117"}}`, // as GitHub's page, so that it shows no edge there
    `text{fill:${ink}}.soft,.small,.tiny{fill:${soft}}.grid{stroke:${rule}}.axis{stroke:${soft}}.whisker{stroke:${ink}}.absent{fill:${rule}}`,
    ...series.map((colour, i) => `.f${i}{fill:${colour}}.s${i}{stroke:${colour}}`),
    ...heat,
  ].join("");
}

/** Title, note and body, one below the other; the body's top is y = 0. */
export function svg(
  { title, note }: { title: string; note?: string | undefined },
  bodyHeight: number,
  body: readonly string[],
): string {
  const noteLines = note ? wrap(note, WIDTH - 2 * MARGIN, 13) : [];
  const top = TITLE_HEIGHT + 17 * noteLines.length + 12;
  const height = Math.ceil(top + bodyHeight + 14);
  const joined = body.join("\n");
  const hasHeat = /class="h\d/.test(joined);
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escapeHtml(title)}">
<style>
text{font:13px ${SANS};font-variant-numeric:tabular-nums}
.title{font-size:16px;font-weight:600}.small{font-size:11px}.tiny{font-size:10px}.strong{font-weight:600}
.grid,.axis{stroke-width:1}.whisker,.thin{stroke-width:1.4}.line{fill:none;stroke-width:2;stroke-linejoin:round}.dash{stroke-width:1.5;stroke-dasharray:5 4}.band{opacity:.16}.pale{opacity:.5}
${colourRules("light", hasHeat)}
@media(prefers-color-scheme:dark){${colourRules("dark", hasHeat)}}
</style>
<rect class="paper" width="${WIDTH}" height="${height}" rx="6"/>
${text(MARGIN, 24, title, { as: "title" })}
${noteLines.map((words, i) => text(MARGIN, TITLE_HEIGHT + 12 + 17 * i, words, { as: "soft" })).join("")}
<g transform="translate(0 ${top})">
${joined}
</g>
</svg>
`;
}

/** A series' sign at (0, 0); signs differ in shape, for those to whom colours do not. */
const SIGNS = [
  '<circle r="4.5"/>',
  '<rect x="-4.2" y="-4.2" width="8.4" height="8.4"/>',
  '<path d="M0-5.6L5.2 4H-5.2Z"/>',
  '<path d="M0-5.8L5.8 0L0 5.8L-5.8 0Z"/>',
  '<path d="M0 5.6L5.2-4H-5.2Z"/>',
];
export const sign = (series: number, x: number, y: number): string =>
  `<g class="f${series % 8}" transform="translate(${round(x)} ${round(y)})">${SIGNS[series % SIGNS.length]}</g>`;
