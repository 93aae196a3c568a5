import { InstructionModel } from "ifprune";

using model = new InstructionModel();
await using answer = await model.ask("What is the plural of wolf?");
for await (const id of answer.tokens) process.stdout.write(answer.decoder.push(id));
console.log(`\n${answer.mask.tFfn} of ${answer.mask.dFfn} channels`, answer.ms);
