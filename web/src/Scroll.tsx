import type { ComponentChildren } from "preact";

/** What may be wider than the page scrolls by itself, with the keys too. */
export function Scroll({ label, children }: { label: string; children: ComponentChildren }) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: who has no pointer scrolls it with the keys
    <section class="scroll" tabIndex={0} aria-label={label}>
      {children}
    </section>
  );
}
