/** The look of reports: light or dark as the reader's system asks, and fit for print. */

/** Colours of text, rules and surfaces, and of series c0, c1, …, by scheme. */
export const palette = {
  light: {
    ink: "#1c1f24",
    soft: "#666677",
    rule: "#dfe2e8",
    paper: "#fbfbfc",
    card: "#ffffff",
    series: ["#3565c9", "#d9602b", "#1f8a70", "#a0559f", "#b8860b", "#c23b5c", "#4c8fb3", "#6b7280"],
  },
  dark: {
    ink: "#e6e8ec",
    soft: "#9aa3b2",
    rule: "#2c313a",
    paper: "#14171c",
    card: "#1b1f26",
    series: ["#7da2f5", "#f09060", "#54c3a4", "#cf8fce", "#e0b84c", "#f07f9a", "#7fc4e6", "#a3abba"],
  },
} as const;

const variables = ({ series, ...others }: (typeof palette)["light" | "dark"]): string =>
  [...Object.entries(others), ...series.map((colour, i) => [`c${i}`, colour])]
    .map(([name, colour]) => `--${name}: ${colour};`)
    .join(" ");

export const style = `
:root { color-scheme: light dark; ${variables(palette.light)} }
@media (prefers-color-scheme: dark) { :root { ${variables(palette.dark)} } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 24px 20px 64px; }
section + section { margin-top: 48px; border-top: 1px solid var(--rule); padding-top: 8px; }
h2 { font-size: 1.5rem; font-weight: 650; letter-spacing: -0.01em; margin: 16px 0 8px; }
h3 { font-size: 0.9rem; font-weight: 600; margin: 0; }
.note { color: var(--soft); max-width: 75ch; margin: 0 0 12px; }
dl { display: flex; flex-wrap: wrap; gap: 8px 36px; margin: 12px 0 20px; }
dt { color: var(--soft); font-size: 0.8rem; }
dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); gap: 16px; margin-bottom: 16px; }
figure { margin: 0; padding: 14px 14px 8px; background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  min-width: 0; break-inside: avoid; }
.legend { display: flex; flex-wrap: wrap; gap: 0 14px; min-height: 1.5em; font-size: 0.8rem; color: var(--soft); }
.key::before { content: ""; display: inline-block; width: 14px; height: 3px; margin-right: 5px; border-radius: 2px;
  vertical-align: middle; background: currentColor; }
.key b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; }
svg { display: block; width: 100%; height: auto; }
.grid { stroke: var(--rule); }
.mark { stroke: var(--soft); stroke-dasharray: 2 3; }
.tick { fill: var(--soft); font-size: 11px; }
.line { fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linejoin: round; }
.dashed { stroke-dasharray: 5 4; }
.band { fill: currentColor; opacity: 0.16; }
circle { fill: currentColor; }
${Array.from({ length: 8 }, (_, i) => `.c${i} { color: var(--c${i}); }`).join("\n")}
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px; text-align: right; }
thead th { border-bottom: 1px solid var(--rule); color: var(--soft); font-size: 0.85rem; font-weight: 600; }
tbody th, tfoot th { text-align: left; font-weight: 500; }
tfoot tr:first-child > * { border-top: 1px solid var(--rule); font-weight: 650; }
tbody tr:hover { background: color-mix(in oklab, var(--c0) 8%, transparent); }
.heat { font-size: 0.68rem; margin-top: 6px; }
.heat th, .heat td { padding: 2px 5px; border: 0; }
.heat thead th { vertical-align: bottom; }
.heat thead span { writing-mode: vertical-rl; transform: rotate(180deg); font-weight: 500; }
.heat td[style] { background: color-mix(in oklab, var(--c0) calc(var(--share) * 75%), transparent); }
summary { cursor: pointer; color: var(--soft); }
pre { overflow-x: auto; padding: 12px; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; font-size: 12px; }
`;
