import { InstructionModel, TINY_MODEL } from "ifprune";

const model = new InstructionModel(TINY_MODEL);
const answer = await model.ask("What is the plural of wolf?");
for await (const text of answer) process.stdout.write(text); // wolves
console.log(`\n${answer.mask.tFfn} of ${answer.mask.dFfn} channels`); // 128 of 1024 channels
