/** Line icons, 16 units wide, in the colour of the text. */
const paths = {
  send: "M8 13V3M3.5 7.5 8 3l4.5 4.5",
  stop: "M4.5 4.5h7v7h-7z",
  copy: "M5.5 5.5h7v8h-7zM10.5 5.5v-3h-7v8h2",
  done: "M3 8.5 6.5 12 13 4.5",
  edit: "M3 13v-2.5l7.5-7.5 2.5 2.5L5.5 13zM9 4.5 11.5 7",
  again: "M13 8a5 5 0 1 1-1.6-3.7M13 2.5v3h-3",
  plus: "M8 3v10M3 8h10",
  trash: "M3 4.5h10M6.5 4V2.5h3V4M4.5 4.5l.6 9h5.8l.6-9M6.8 7v4M9.2 7v4",
  download: "M8 2.5v8M4.5 7.5 8 11l3.5-3.5M3 13.5h10",
  list: "M3 4h10M3 8h10M3 12h10",
  sun: "M8 5.2a2.8 2.8 0 1 1 0 5.6 2.8 2.8 0 0 1 0-5.6M8 1.5v1.4M8 13.1v1.4M1.5 8h1.4M13.1 8h1.4M3.4 3.4l1 1M11.6 11.6l1 1M12.6 3.4l-1 1M4.4 11.6l-1 1",
  moon: "M13 9.6A5.6 5.6 0 0 1 6.4 3a5.6 5.6 0 1 0 6.6 6.6",
  system: "M2.5 3.5h11v7h-11zM6 13.5h4M8 10.5v3",
  settings:
    "M3 5h5.5M11.5 5H13M3 11h1.5M7.5 11H13M10 3.5a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3M6 9.5a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3",
} as const;

export function Icon({ name }: { name: keyof typeof paths }) {
  return (
    <svg class="icon" viewBox="0 0 16 16" aria-hidden="true">
      <path d={paths[name]} />
    </svg>
  );
}
