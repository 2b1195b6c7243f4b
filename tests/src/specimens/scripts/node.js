// Timers, promises, a worker thread, a child, files by libuv's thread pool.
const fs = require("fs");
const { Worker } = require("worker_threads");
const { spawn } = require("child_process");
const worker = new Worker(
    "const { parentPort } = require('worker_threads'); parentPort.on('message', n => parentPort.postMessage(n * n));",
    { eval: true },
);
const child = spawn("cat");
const ask = (number) => new Promise((answer) => { worker.once("message", answer); worker.postMessage(number); });
const echo = (text) => new Promise((answer) => {
    child.stdout.once("data", (data) => answer(data.toString()));
    child.stdin.write(text);
});
// One write for each line, in order: what is printed is counted.
const say = (text) => fs.writeSync(1, text + "\n");
let leave = false;
process.on("SIGTERM", () => { leave = true; });
async function main() {
    if (await ask(3) !== 9 || await echo("one") !== "one") process.exit(1);
    await fs.promises.writeFile("/srv/node-file", "one\n");
    say("ready");
    for (let tick = 1; ; tick++) {
        say(`tick ${tick}`);
        if (leave || await fs.promises.access("/srv/go").then(() => true, () => false)) break;
        await new Promise((later) => setTimeout(later, 25));
    }
    say("done");
    await fs.promises.appendFile("/srv/node-file", "two\n");
    const text = await fs.promises.readFile("/srv/node-file", "utf8");
    const whole = await ask(4) === 16 && await echo("two") === "two" && text === "one\ntwo\n";
    process.exit(whole ? 7 : 2);
}
main();
