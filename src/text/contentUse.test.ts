import { Environment, Interpreter, Template } from "@huggingface/jinja";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { watchContents } from "./contentUse.ts";

const messages = (contents: readonly string[]) =>
  contents.map((content, i) => ({ role: i % 2 === 0 ? "user" : "assistant", content }));

function run(source: string, contents: readonly string[]) {
  const environment = new Environment();
  for (const [name, value] of Object.entries({ messages: messages(contents), true: true, x: "abc", none: null }))
    environment.set(name, value);
  const interpreter = new Interpreter(environment);
  const watch = watchContents(interpreter, "\u{f0000}", () => {});
  const text = String(interpreter.run(new Template(source).parsed).value);
  return { text, isLookedInto: watch.isLookedInto };
}
const marks = ["\u2003\u{f0000}0\u{f0001}\u2003", "\u2003\u{f0000}1\u{f0001}\u2003"];

/** Of the templates of chat models. */
const plain = [
  "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}",
  "{% for m in messages %}{{ m['content'] | trim + ' ' }}{{ loop.index }}{% if not loop.last %};{% endif %}{% endfor %}",
  "{% set first = messages[0]['content'] %}{{ 'a' ~ first.strip() }}{{ messages[1:][0].content.lstrip() }}",
  "{% set n = namespace(seen=none) %}{% for m in messages %}{% set n.seen = m.content %}{% endfor %}{{ n.seen }}",
  "{% if messages[0].content %}{{ messages[0].content.rstrip() }}{% endif %}{{ messages | length }}",
  "{% for m in messages if m.role == 'user' %}{{ m.content if m.content is string else '' }}{% endfor %}",
  "{% for m in messages %}{% if 'tools' in m %}T{% elif m.content is defined and m.role != 'system' %}{{ m.content }}{% endif %}{% endfor %}",
  "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.get('content') }}{% endfor %}",
  "{% set body %}<{{ messages[0].content }}>{% endset %}{{ body }}",
  "{{ (messages | first).content }}",
];

/** What depends on what else is in a content. */
const looking = [
  "{% if messages[0].content == 'abc' %}x{% endif %}",
  "{% if 'abc' == messages[0].content | trim %}x{% endif %}",
  "{% if 'b' in messages[0].content %}x{% endif %}",
  "{% if messages[0].content in 'abcd' %}x{% endif %}",
  "{% if messages[0].content.startswith('a') %}x{% endif %}",
  "{% set c = messages[0].content %}{% if c.split('b')[0] == 'a' %}x{% endif %}",
  "{{ messages[0].content | upper }}",
  "{{ messages[0].content | replace('b', 'x') }}",
  "{{ 'abc' | replace(messages[0].content, 'x') }}",
  "{{ messages[0].content | length }}",
  "{{ messages[0].content[0] }}",
  "{{ messages[0].content[1:] }}",
  "{% if messages[0].content is lower %}x{% endif %}",
  "{{ messages | tojson }}",
  "{{ messages }}",
  "{{ 'a' ~ messages }}",
  "{% set shown %}{{ messages[0] }}{% endset %}{{ shown }}",
  "{{ messages | map(attribute='content') | join }}",
  "{% for m in messages | selectattr('content', 'equalto', 'abc') %}x{% endfor %}",
  "{% filter upper %}{{ messages[0].content }}{% endfilter %}",
  "{{ {'abc': 'x'}[messages[0].content] }}",
  "{% if x in [messages[0].content] %}x{% endif %}",
  "{% macro m(c) %}{{ 'x' if c == 'abc' else c }}{% endmacro %}{{ m(messages[0].content) }}",
];

describe("a template that writes contents as they are, trimmed or not", () => {
  test.each(plain)("%s", (source) => {
    expect(run(source, marks).isLookedInto).toBe(false);
    // so it writes all contents as it writes the marks; seed 1
    const part = (...texts: string[]) => fc.constantFrom(...texts);
    const spaces = part("", " ", "\n", "\u2003");
    const content = fc.tuple(spaces, part("abc", "a", '"b"', "{{ x }}", "B\\"), spaces).map((parts) => parts.join(""));
    for (const contents of fc.sample(fc.tuple(content, content), { seed: 1, numRuns: 30 })) {
      let expected = run(source, marks).text;
      for (const [i, text] of contents.entries())
        expected = expected.replace(
          new RegExp(`(\u2003?)\u{f0000}${i}\u{f0001}(\u2003?)`, "gu"),
          (_, before, after) => {
            const trimmed = before ? text : text.trimStart();
            return after ? trimmed : trimmed.trimEnd();
          },
        );
      expect(run(source, contents).text).toBe(expected);
    }
  });
});

describe("a template that looks into contents", () => {
  test.each(looking)("%s", (source) => {
    expect(run(source, marks).isLookedInto).toBe(true);
    const atOthers = source.replaceAll("messages", "(messages[0:0] or [{'content': x}])");
    expect(run(atOthers, marks).isLookedInto).toBe(false); // at other texts it may look
  });
});
