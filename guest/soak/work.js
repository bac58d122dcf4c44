// Known results, computed hot enough for every tier of the compiler.
'use strict';
const crypto = require('crypto');
const hash = crypto.createHash('sha256');
const note = (name, value) => { hash.update(name + '=' + value + '\n'); };

let state = 12345;
const random = () => (state = Math.imul(state, 1664525) + 1013904223 | 0) >>> 0;

// Objects whose shapes change, so that compiled code is thrown away again.
class Point { constructor(x, y) { this.x = x; this.y = y; } get size() { return this.x * this.x + this.y * this.y; } }
let sum = 0;
for (let i = 0; i < 3e6; i++) {
    const p = new Point(i % 1000, random() % 1000);
    if (i % 100000 === 99999) p.z = i;
    sum = (sum + p.size + (p.z ? p.z : 0)) % 1000000007;
}
note('objects', sum);

const matrix = n => {
    const a = new Float64Array(n * n), b = new Float64Array(n * n), c = new Float64Array(n * n);
    for (let i = 0; i < n * n; i++) { a[i] = random() / 4294967296; b[i] = random() / 4294967296; }
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) {
        let s = 0;
        for (let k = 0; k < n; k++) s += a[i * n + k] * b[k * n + j];
        c[i * n + j] = s;
    }
    return c.reduce((x, y) => x + y, 0);
};
note('matrix', matrix(220));

const words = new Map();
for (let i = 0; i < 300000; i++) {
    const w = (random() % 5000).toString(36);
    words.set(w, (words.get(w) || 0) + 1);
}
note('map', [...words.entries()].sort().join(';'));
note('text', 'lorem ipsum dolor '.repeat(2000).replace(/(\w+) (\w+)/g, (m, a, b) => b + a.length).length);
note('json', JSON.stringify(JSON.parse(JSON.stringify([...words])).reverse()).length);
let big = 1n;
for (let i = 1n; i < 1200n; i++) big = big * i;
note('bigint', big.toString().slice(0, 60) + big.toString().length);
note('sort', Array.from({length: 200000}, random).sort((a, b) => a - b).filter((_, i) => i % 997 === 0).join());
const fib = n => n < 2 ? n : fib(n - 1) + fib(n - 2);
note('calls', fib(30));
function* numbers(n) { for (let i = 0; i < n; i++) yield i; }
let odd = 0;
for (const n of numbers(500000)) { try { if (n % 1000 === 7) throw n; odd += n & 1; } catch (e) { odd += e; } }
note('generators', odd);
// A WebAssembly module: (func (export "f") (param i32) (result i32)), a loop that adds squares.
const wasm = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 127, 1, 127, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 30, 1,
    28, 1, 1, 127, 3, 64, 32, 1, 32, 0, 32, 0, 108, 106, 33, 1, 32, 0, 65, 1, 107, 34, 0, 13, 0, 11, 32, 1, 11]);
try {
    const f = new WebAssembly.Instance(new WebAssembly.Module(wasm.subarray(0, wasm.length))).exports.f;
    note('wasm', f(5000000));
} catch (e) { note('wasm', 'none: ' + e.constructor.name); }
// New functions all the time.
let made = 0;
for (let i = 0; i < 3000; i++) made = (made + new Function('x', `let s = ${i}; for (let j = 0; j < 20; j++) s = (s * x + j) % 65521; return s;`)(i)) % 65521;
note('made', made);
console.log(hash.digest('hex'));
