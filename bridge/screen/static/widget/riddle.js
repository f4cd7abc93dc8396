const SLICE_MS = 12;

// SHA-256 by hand: the browser's own is away on pages without https, and answers each hash by a promise.
const primes = [];
for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
const fraction = (x) => ((x - Math.floor(x)) * 2 ** 32) | 0;
const K = Int32Array.from(primes, (p) => fraction(Math.cbrt(p)));
const H0 = Int32Array.from(primes.slice(0, 8), (p) => fraction(Math.sqrt(p)));
const w = new Int32Array(64);
const turn = (x, n) => (x >>> n) | (x << (32 - n));

/** The eight words of the text's SHA-256. */
function sha256(text) {
  const bytes = new TextEncoder().encode(text);
  const padded = new Uint8Array(((bytes.length + 72) >> 6) << 6);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 4, bytes.length * 8);
  const hash = Int32Array.from(H0);
  for (let block = 0; block < padded.length; block += 64) {
    for (let i = 0; i < 16; i++) w[i] = view.getInt32(block + i * 4);
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15], y = w[i - 2];
      w[i] = (w[i - 16] + w[i - 7] + (turn(x, 7) ^ turn(x, 18) ^ (x >>> 3)) + (turn(y, 17) ^ turn(y, 19) ^ (y >>> 10))) | 0;
    }
    let [a, b, c, d, e, f, g, k] = hash;
    for (let i = 0; i < 64; i++) {
      const one = (k + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + K[i] + w[i]) | 0;
      const two = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      k = g; g = f; f = e; e = (d + one) | 0; d = c; c = b; b = a; a = (one + two) | 0;
    }
    [a, b, c, d, e, f, g, k].forEach((word, i) => { hash[i] += word; });
  }
  return hash;
}

const zeroBits = (hash) => {
  const first = hash.findIndex((word) => word !== 0);
  return first < 0 ? 256 : first * 32 + Math.clz32(hash[first]);
};

/** The nonce whose hash begins with that many zero bits, looked for in slices between which the page lives on. */
async function solve({ challenge, bits }, signal) {
  for (let nonce = 0; !signal.aborted;) {
    const until = performance.now() + SLICE_MS;
    while (performance.now() < until) {
      for (let i = 0; i < 64; i++, nonce++) if (zeroBits(sha256(`${challenge}:${nonce}`)) >= bits) return `${challenge}:${nonce}`;
    }
    await rest(signal, 0);
  }
  return null;
}
