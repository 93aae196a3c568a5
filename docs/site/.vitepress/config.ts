/**
 * The site: the repository's own prose at its own paths (README is the first page), and the reference that TypeDoc writes. Nothing is fetched while it
 * is built, and a link that leads nowhere fails the build: pages by VitePress, files of the repository and headings here.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { type DefaultTheme, defineConfig, type MarkdownRenderer } from "vitepress";

const repository = fileURLToPath(new URL("../../..", import.meta.url));
const reference = join(repository, "docs/reference/typedoc-sidebar.json");

/** What has pages; all else in the folder is left out, models and runs of one's own too. */
const shown = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md", "docs", "experiments", "bench", "models"];

const guides: DefaultTheme.SidebarItem[] = [
  { text: "Ask and chat", link: "/docs/chat" },
  { text: "Models of your own", link: "/docs/models" },
  { text: "Serve", link: "/docs/serve" },
  { text: "Export", link: "/docs/export" },
  { text: "A model for one task", link: "/docs/specialize" },
  { text: "Prune and heal", link: "/docs/prune" },
  { text: "Train", link: "/docs/train" },
  { text: "Evaluate and measure", link: "/docs/evaluate" },
  { text: "In a program", link: "/docs/library" },
];

const sidebar: DefaultTheme.SidebarItem[] = [
  { text: "Start", link: "/" },
  { text: "Guides", items: guides },
  {
    text: "The method",
    items: [
      { text: "In pictures", link: "/docs/method" },
      { text: "Words", link: "/docs/glossary" },
      { text: "Architecture of the code", link: "/ARCHITECTURE" },
      { text: "Security", link: "/SECURITY" },
    ],
  },
  {
    text: "What was measured",
    items: [
      { text: "Results", link: "/docs/results" },
      { text: "Tables", link: "/experiments/suite/results/tables" },
      { text: "The default model", link: "/models/default/README" },
      { text: "The tiny model", link: "/models/tiny/README" },
      { text: "The suite", link: "/experiments/suite/README" },
      { text: "SmolLM2", link: "/experiments/smollm2/README" },
      { text: "SmolLM2, tables", link: "/experiments/smollm2/results/tables" },
      { text: "Log", link: "/docs/log" },
    ],
  },
  { text: "Reference", link: "/docs/reference/", collapsed: true, items: JSON.parse(readFileSync(reference, "utf8")) },
  { text: "Changes", link: "/CHANGELOG" },
];

/** Anchors as GitHub makes them, so that a link to a heading is right in both places. */
function slugify(heading: string): string {
  return heading
    .trim()
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
    .replaceAll(" ", "-");
}

/** Indented code as fenced, which scrolls and can be copied. */
const indentedCode = (md: MarkdownRenderer) => {
  md.core.ruler.push("indented-code", ({ tokens }) => {
    for (const token of tokens) if (token.type === "code_block") token.type = "fence";
  });
};

/** Files that are no pages are named and not linked: they have no public address. @throws {Error} if one does not exist */
const namedFiles = (md: MarkdownRenderer) => {
  md.core.ruler.push("named-files", ({ tokens, env }) => {
    for (const { children } of tokens) {
      let isNamed = false;
      for (const token of children ?? []) {
        if (token.type === "link_open") {
          const [href = ""] = (token.attrGet("href") ?? "").split("#");
          isNamed = /\.\w+$/.test(href) && !/^[a-z]+:|\.md$/.test(href);
          if (!isNamed) continue;
          const path = join(href.startsWith("/") ? repository : dirname(env.path), href);
          if (!existsSync(path)) throw new Error(`${env.path}: wanted a file at ${href}, got none. Mend the link.`);
          token.attrs = [["title", relative(repository, path)]];
        }
        if (isNamed && token.type.startsWith("link_")) token.tag = "span";
        if (token.type === "link_close") isNamed = false;
      }
    }
  });
};

/** @throws {Error} if a link of a built page leads to a file or a heading that there is not */
function checkLinks(outDir: string): void {
  const pages = readdirSync(outDir, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".html"));
  const html = new Map(pages.map((name) => [`/${name}`, readFileSync(join(outDir, name), "utf8")]));
  const ids = new Map([...html].map(([name, text]) => [name, new Set(text.match(/(?<= id=")[^"]+/g))]));
  const dead: string[] = [];
  for (const [name, text] of html) {
    for (const [href] of text.matchAll(/(?<= href=")(?![a-z]+:|\/\/)[^"]+/g)) {
      const { pathname, hash } = new URL(href, `https://site${name}`);
      const path = decodeURIComponent(pathname.endsWith("/") ? `${pathname}index.html` : pathname);
      const heading = decodeURIComponent(hash.slice(1));
      if (!existsSync(join(outDir, path)) || (heading && ids.has(path) && !ids.get(path)!.has(heading)))
        dead.push(`${name}: ${href}`);
    }
  }
  if (dead.length > 0) throw new Error(`Wanted links that lead somewhere, got\n${[...new Set(dead)].join("\n")}`);
}

export default defineConfig({
  title: "ifprune",
  description:
    "A language model that activates, for every instruction, only the part of itself that the instruction needs.",
  lang: "en",
  head: [
    ["link", { rel: "icon", href: "data:," }],
    ["style", {}, ".vp-doc :is(th, td:first-child) code { white-space: nowrap }"],
  ],
  srcDir: "../..",
  srcExclude: readdirSync(repository).flatMap((name) => (shown.includes(name) ? [] : [name, `${name}/**`])),
  rewrites: { "README.md": "index.md" },
  markdown: { anchor: { slugify }, config: (md) => void md.use(indentedCode).use(namedFiles) },
  vite: {
    plugins: [
      {
        name: "vue-of-this-folder", // not looked for beside the pages, which lie outside
        enforce: "pre",
        resolveId(id, _, { ssr }) {
          if (ssr && /^vue(\/|$)/.test(id)) return { id, external: true };
        },
      },
    ],
    build: { assetsInlineLimit: 0, chunkSizeWarningLimit: 4096 }, // pictures stay files, which follow the reader's colours; the log is long
  },
  themeConfig: {
    sidebar,
    outline: [2, 3],
    search: { provider: "local" },
  },
  buildEnd: ({ outDir }) => checkLinks(outDir),
});
