/** Conversations as clients keep them, of two and three turns. */
import type { Chat } from "./compare.ts";

const user = (content: string) => ({ role: "user", content });
const assistant = (content: string) => ({ role: "assistant", content });
const system = { role: "system", content: "Be kind." };

const call = (id: string, name: string, given: object) => ({
  id,
  type: "function",
  function: { name, arguments: JSON.stringify(given) },
});
const tools = [
  {
    type: "function",
    function: {
      name: "weather",
      description: 'Weather of a "city" & more <now>',
      parameters: {
        type: "object",
        properties: {
          city: { type: "string", description: "Its name, as in Tromsø" },
          days: { type: "integer", default: 1 },
        },
        required: ["city"],
      },
    },
  },
  { type: "function", function: { name: "now", parameters: { type: "object", properties: {} } } },
];
const called = {
  role: "assistant",
  content: null,
  tool_calls: [call("call_1aaaaaaa", "weather", { city: "Tromsø", days: 2, "a b": [1, null, true, 1.5] })],
};
const result = { role: "tool", tool_call_id: "call_1aaaaaaa", name: "weather", content: '{"sky": "clear"}' };

/** Those that end with an answer's beginning are continued. */
export const chats: Chat[] = [
  { name: "one question", messages: [user(" Hi there ")] },
  { name: "two turns", messages: [user("a"), assistant("b"), user("c")] },
  {
    name: "three turns after a system message",
    messages: [system, user("a"), assistant("b\n"), user("c\n\nd"), assistant(" e"), user("f")],
  },
  { name: "a begun answer", messages: [user("a"), assistant("b"), user("c"), assistant("The answer")] },
  {
    name: "thoughts in the text",
    messages: [user("a"), assistant("<think>\nhm\n</think>\n\nb"), user("c"), assistant("d"), user("e")],
  },
  {
    name: "thoughts beside the text",
    messages: [user("a"), { ...assistant("b"), reasoning_content: "hm" }, user("c")],
  },
  { name: "no text at all", messages: [user("a"), assistant(""), user("c")] },
  { name: "tools", tools, messages: [user("Weather?")] },
  {
    name: "tools after a system message",
    tools,
    messages: [system, user("Weather?"), assistant("Where?"), user("Here.")],
  },
  { name: "a call and its result", tools, messages: [user("Weather?"), called, result] },
  {
    name: "a call in an earlier turn",
    tools,
    messages: [system, user("Weather?"), called, result, assistant("Clear."), user("Thanks.")],
  },
  {
    name: "two calls, with words and thoughts",
    tools,
    messages: [
      user("Weather and time?"),
      {
        role: "assistant",
        content: "I look.",
        reasoning_content: "Both, then.",
        tool_calls: [call("call_1aaaaaaa", "weather", { city: "Oslo" }), call("call_2aaaaaaa", "now", {})],
      },
      { ...result, content: "rain" },
      { role: "tool", tool_call_id: "call_2aaaaaaa", name: "now", content: "noon" },
    ],
  },
  {
    name: "calls of two steps, with thoughts",
    tools,
    messages: [
      user("Weather?"),
      { ...called, reasoning_content: "I look." },
      result,
      { role: "assistant", content: "", reasoning_content: "And now?", tool_calls: [call("call_2aaaaaaa", "now", {})] },
      { role: "tool", tool_call_id: "call_2aaaaaaa", name: "now", content: "noon" },
    ],
  },
];
