/** A chart of the reports, as wide as there is room. */
import { useEffect, useRef, useState } from "preact/hooks";
import { type Chart, lineChart } from "../../src/report/chart.ts";

export function LineChart(chart: Chart) {
  const element = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState<number>();
  useEffect(() => {
    const sizes = new ResizeObserver(() => setWidth(element.current!.clientWidth));
    sizes.observe(element.current!);
    return () => sizes.disconnect();
  }, []);
  const html = width ? lineChart({ ...chart, width }) : "";
  useEffect(() => {
    const picture = document.createRange().createContextualFragment(html); // texts in it are escaped
    element.current!.replaceChildren(picture);
  }, [html]);
  return <div class="line-chart" ref={element} />;
}
