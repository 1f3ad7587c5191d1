// The objects that a function finds beside those of the language. `native` has what is done in Rust.
(function (native, env) {
  'use strict';
  const define = (target, members) => {
    for (const name of Object.keys(members)) {
      const value = members[name];
      Object.defineProperty(target, name, { value, writable: true, configurable: true, enumerable: false });
    }
  };
  // As text of which each character is a byte.
  const raw = (bytes) => {
    let text = '';
    for (let i = 0; i < bytes.length; i += 8192) text += fromCharCode.apply(null, bytes.subarray(i, i + 8192));
    return text;
  };
  const { fromCharCode } = String;
  const { toWellFormed } = String.prototype;
  const bytesOf = (data, encoding) => {
    if (typeof data === 'string') return native.bytes(toWellFormed.call(data), encodingOf(encoding));
    if (data instanceof Uint8Array) return data;
    if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    throw new TypeError('The data must be a string, a Buffer or a TypedArray');
  };
  const ENCODINGS = {
    utf8: 'utf8', 'utf-8': 'utf8', hex: 'hex', base64: 'base64', base64url: 'base64url',
    latin1: 'latin1', binary: 'latin1', ascii: 'latin1',
  };
  const encodingOf = (encoding = 'utf8') => {
    const known = ENCODINGS[String(encoding).toLowerCase()];
    if (known === undefined) throw new TypeError('Unknown encoding: ' + encoding);
    return known;
  };
  const joined = (parts) => {
    const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  };

  class Buffer extends Uint8Array {
    static from(source, encoding) {
      if (typeof source === 'string') return new Buffer(bytesOf(source, encoding));
      if (source instanceof ArrayBuffer || ArrayBuffer.isView(source) || Array.isArray(source)) return new Buffer(source);
      throw new TypeError('The first argument must be a string, an ArrayBuffer, an array or a Buffer');
    }
    static alloc(size) { return new Buffer(size); }
    static isBuffer(value) { return value instanceof Buffer; }
    static byteLength(text, encoding) { return bytesOf(text, encoding).length; }
    static concat(parts) { return new Buffer(joined(parts)); }
    toString(encoding) { return native.text(raw(this), encodingOf(encoding)); }
    equals(other) { return this.length === other.length && this.every((byte, i) => byte === other[i]); }
    toJSON() { return { type: 'Buffer', data: Array.from(this) }; }
  }
  const given = (bytes, encoding) =>
    encoding === undefined || encoding === 'buffer' ? new Buffer(bytes) : native.text(raw(bytes), encodingOf(encoding));

  class Hash {
    #algorithm;
    #parts = [];
    constructor(algorithm) {
      this.#algorithm = String(algorithm).toLowerCase();
      native.hash(this.#algorithm, '');
    }
    update(data, encoding) {
      if (this.#parts === null) throw new Error('Digest already called');
      this.#parts.push(bytesOf(data, encoding).slice());
      return this;
    }
    digest(encoding) {
      if (this.#parts === null) throw new Error('Digest already called');
      const bytes = native.hash(this.#algorithm, raw(joined(this.#parts)));
      this.#parts = null;
      return given(bytes, encoding);
    }
  }

  // Bytes at the end that are no whole character yet.
  const incomplete = (bytes, encoding) => {
    if (encoding.startsWith('base64')) return bytes.length % 3;
    if (encoding !== 'utf8') return 0;
    for (let back = 1; back <= Math.min(3, bytes.length); back++) {
      const byte = bytes[bytes.length - back];
      if (byte < 0x80) return 0;
      if (byte >= 0xc0) return (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2) > back ? back : 0;
    }
    return 0;
  };

  // Blocks are given out as they are complete, so that the pieces together are the whole.
  class Cipher {
    #algorithm;
    #key;
    #decrypts;
    #input = new Uint8Array(0);
    #given = 0;
    #rest = new Uint8Array(0);
    constructor(algorithm, key, decrypts) {
      this.#algorithm = String(algorithm).toLowerCase();
      this.#key = raw(bytesOf(key));
      this.#decrypts = decrypts;
      native.cipher(this.#algorithm, this.#key, '', decrypts, false);
    }
    update(data, from, to) {
      this.#input = joined([this.#input, bytesOf(data, from)]);
      const held = this.#decrypts ? 1 : 0;
      const whole = Math.max(0, Math.floor((this.#input.length - held) / 16) * 16);
      const bytes = native.cipher(this.#algorithm, this.#key, raw(this.#input.slice(0, whole)), this.#decrypts, false);
      return this.#give(bytes, to, false);
    }
    final(to) {
      return this.#give(native.cipher(this.#algorithm, this.#key, raw(this.#input), this.#decrypts, true), to, true);
    }
    #give(bytes, to, isEnd) {
      let fresh = joined([this.#rest, bytes.slice(this.#given)]);
      this.#given = bytes.length;
      const kept = isEnd || to === undefined || to === 'buffer' ? 0 : incomplete(fresh, encodingOf(to));
      this.#rest = fresh.slice(fresh.length - kept);
      fresh = fresh.slice(0, fresh.length - kept);
      return given(fresh, to);
    }
  }
  const crypto = {
    createHash: (algorithm) => new Hash(algorithm),
    createCipher: (algorithm, key) => new Cipher(algorithm, key, false),
    createDecipher: (algorithm, key) => new Cipher(algorithm, key, true),
    randomUUID: () => native.uuid(),
  };

  const printed = (value) => {
    if (typeof value === 'string') return value;
    if (value instanceof Error) return `${value.name}: ${value.message}`;
    try {
      const text = JSON.stringify(value);
      return text === undefined ? String(value) : text;
    } catch {
      return String(value);
    }
  };
  const console = {};
  const others = ['assert', 'count', 'dir', 'group', 'groupCollapsed', 'groupEnd', 'table', 'time', 'timeEnd', 'timeLog'];
  for (const name of others) console[name] = () => {};
  for (const level of ['debug', 'error', 'info', 'log', 'trace', 'warn']) {
    console[level] = (...values) => native.log(level, toWellFormed.call(values.map(printed).join(' ')));
  }

  const cloned = (value, seen) => {
    if (typeof value === 'function' || typeof value === 'symbol') {
      const error = new Error('it could not be cloned');
      error.name = 'DataCloneError';
      throw error;
    }
    if (value === null || typeof value !== 'object') return value;
    if (seen.has(value)) return seen.get(value);
    const into = (copy, fill) => {
      seen.set(value, copy);
      fill(copy);
      return copy;
    };
    if (value instanceof Date) return new Date(value.getTime());
    if (value instanceof RegExp) return new RegExp(value.source, value.flags);
    if (value instanceof ArrayBuffer) return value.slice(0);
    if (ArrayBuffer.isView(value)) return new value.constructor(value);
    if (value instanceof Map) return into(new Map(), (copy) => value.forEach((v, k) => copy.set(cloned(k, seen), cloned(v, seen))));
    if (value instanceof Set) return into(new Set(), (copy) => value.forEach((v) => copy.add(cloned(v, seen))));
    if (Array.isArray(value)) return into(new Array(value.length), (copy) => value.forEach((v, i) => { copy[i] = cloned(v, seen); }));
    return into({}, (copy) => Object.keys(value).forEach((key) => { copy[key] = cloned(value[key], seen); }));
  };

  class TextEncoder {
    get encoding() { return 'utf-8'; }
    encode(text = '') { return bytesOf(String(text)); }
  }
  class TextDecoder {
    get encoding() { return 'utf-8'; }
    decode(bytes = new Uint8Array(0)) { return native.text(raw(bytesOf(bytes)), 'utf8'); }
  }

  const formEncoded = (text) =>
    encodeURIComponent(text).replace(/%20/g, '+').replace(/[!'()~]/g, (c) => '%' + c.charCodeAt(0).toString(16).toUpperCase());
  const formDecoded = (text) => {
    const spaced = text.replace(/\+/g, ' ');
    try {
      return decodeURIComponent(spaced);
    } catch {
      return spaced;
    }
  };
  class URLSearchParams {
    #pairs = [];
    constructor(init = '') {
      if (typeof init === 'string') {
        for (const part of init.replace(/^\?/, '').split('&').filter(Boolean)) {
          const at = part.indexOf('=');
          const [name, value] = at < 0 ? [part, ''] : [part.slice(0, at), part.slice(at + 1)];
          this.#pairs.push([formDecoded(name), formDecoded(value)]);
        }
      } else {
        const pairs = typeof init[Symbol.iterator] === 'function' ? init : Object.entries(init);
        for (const [name, value] of pairs) this.append(name, value);
      }
    }
    append(name, value) { this.#pairs.push([String(name), String(value)]); }
    delete(name) { this.#pairs = this.#pairs.filter(([other]) => other !== name); }
    get(name) { return this.#pairs.find(([other]) => other === name)?.[1] ?? null; }
    getAll(name) { return this.#pairs.filter(([other]) => other === name).map(([, value]) => value); }
    has(name) { return this.#pairs.some(([other]) => other === name); }
    set(name, value) {
      const at = this.#pairs.findIndex(([other]) => other === name);
      if (at < 0) return this.append(name, value);
      this.#pairs = this.#pairs.filter(([other], i) => other !== name || i === at);
      this.#pairs[at][1] = String(value);
    }
    forEach(each) { this.#pairs.forEach(([name, value]) => each(value, name, this)); }
    *keys() { for (const [name] of this.#pairs) yield name; }
    *values() { for (const [, value] of this.#pairs) yield value; }
    *entries() { for (const pair of this.#pairs) yield [...pair]; }
    [Symbol.iterator]() { return this.entries(); }
    toString() { return this.#pairs.map((pair) => pair.map(formEncoded).join('=')).join('&'); }
  }
  const unchangeable = () => {
    throw new TypeError('a URL cannot be changed here; make another one of its parts');
  };
  class URL {
    constructor(url, base) {
      const parts = JSON.parse(native.url(String(url), base === undefined ? null : String(base)));
      parts.searchParams = new URLSearchParams(parts.search);
      for (const name of ['append', 'delete', 'set']) define(parts.searchParams, { [name]: unchangeable });
      for (const name of Object.keys(parts)) {
        Object.defineProperty(this, name, { get: () => parts[name], set: unchangeable, enumerable: true });
      }
    }
    static canParse(url, base) {
      try {
        return Boolean(new URL(url, base));
      } catch {
        return false;
      }
    }
    toString() { return this.href; }
    toJSON() { return this.href; }
  }

  // The clock and the time zone are the host's, not the machine's.
  const RealDate = Date;
  const P = RealDate.prototype;
  const { getTime, setTime, getTimezoneOffset, toISOString } = P;
  const MINUTE = 60000;
  const offset = native.isUtc ? () => 0 : (time) => (Number.isNaN(time) ? 0 : native.offset(time));
  const wallOf = (time) => time + offset(time) * MINUTE;
  const fromWall = native.isUtc ? (wall) => wall : (wall) => (Number.isNaN(wall) ? wall : native.fromWall(wall));
  const DAY_ONLY = /^\s*[+-]?\d{4,6}(-\d\d){0,2}\s*$/;
  const ZONE = /\d:\d\d.*(Z|[+-]\d\d:?\d\d)|GMT|UTC|\b([ECMP][SD]T|CES?T|EES?T|WES?T|MSK|JST|HST|AKST|AKDT)\b/i;
  const parse = (text) => {
    const time = RealDate.parse(text);
    if (Number.isNaN(time) || DAY_ONLY.test(text) || ZONE.test(text)) return time;
    return fromWall(time - getTimezoneOffset.call(new RealDate(time)) * MINUTE);
  };
  const primitive = (value) => {
    if (value === null || typeof value !== 'object') return value;
    if (value instanceof RealDate) return getTime.call(value);
    const inner = value.valueOf();
    return inner !== null && typeof inner === 'object' ? String(value) : inner;
  };
  const timeOf = (args) => {
    if (args.length === 0) return native.now();
    if (args.length > 1) return fromWall(RealDate.UTC(...args));
    const value = primitive(args[0]);
    return typeof value === 'string' ? parse(value) : Number(value);
  };
  function HostDate(...args) {
    if (!new.target) return new HostDate().toString();
    return Reflect.construct(RealDate, [timeOf(args)], new.target);
  }
  Object.defineProperty(HostDate, 'name', { value: 'Date' });
  Object.defineProperty(HostDate, 'length', { value: 7 });
  Object.defineProperty(HostDate, 'prototype', { value: P, writable: false });
  define(HostDate, { now: () => native.now(), parse: (text) => parse(String(text)), UTC: RealDate.UTC });
  define(P, { constructor: HostDate });
  for (const part of ['FullYear', 'Month', 'Date', 'Day', 'Hours', 'Minutes', 'Seconds', 'Milliseconds']) {
    const [get, set] = [P['getUTC' + part], P['setUTC' + part]];
    define(P, {
      ['get' + part]: native.isUtc ? get : function () { return get.call(new RealDate(wallOf(getTime.call(this)))); },
    });
    if (set === undefined) continue;
    define(P, {
      ['set' + part]: native.isUtc ? set : function (...args) {
        const wall = new RealDate(wallOf(getTime.call(this)));
        set.apply(wall, args);
        return setTime.call(this, fromWall(getTime.call(wall)));
      },
    });
  }
  const DAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];
  const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
  const two = (number) => String(number).padStart(2, '0');
  const day = (date) =>
    `${DAYS[date.getDay()]} ${MONTHS[date.getMonth()]} ${two(date.getDate())} ${String(date.getFullYear()).padStart(4, '0')}`;
  const clock = (date) => {
    const minutes = offset(date.getTime());
    const zone = two(Math.floor(Math.abs(minutes) / 60)) + two(Math.abs(minutes) % 60);
    const at = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
    return `${at} GMT${minutes < 0 ? '-' : '+'}${zone} (${native.zone})`;
  };
  const plain = (date) => `${date.getMonth() + 1}/${date.getDate()}/${date.getFullYear()}`;
  const twelve = (date) => {
    const hours = date.getHours();
    return `${hours % 12 || 12}:${two(date.getMinutes())}:${two(date.getSeconds())} ${hours < 12 ? 'AM' : 'PM'}`;
  };
  const spoken = (print) => function () { return Number.isNaN(getTime.call(this)) ? 'Invalid Date' : print(this); };
  // There is no table of languages here: what would be printed in another way than asked for is refused.
  const american = (print) => function (language, options) {
    if ((language !== undefined && language !== 'en-US') || options !== undefined) {
      throw new RangeError('dates are printed in en-US without options here');
    }
    return spoken(print).call(this);
  };
  define(P, {
    getTimezoneOffset() {
      const time = getTime.call(this);
      return Number.isNaN(time) ? NaN : 0 - offset(time);
    },
    toString: spoken((date) => `${day(date)} ${clock(date)}`),
    toDateString: spoken(day),
    toTimeString: spoken(clock),
    toLocaleDateString: american(plain),
    toLocaleTimeString: american(twelve),
    toLocaleString: american((date) => `${plain(date)}, ${twelve(date)}`),
    toISOString,
  });

  // Letters first, then accents, then small before large, as everywhere in the languages of Latin script.
  const bare = (text) => text.normalize('NFD').replace(/\p{M}/gu, '').toLowerCase();
  const swapped = (text) => text.replace(/\p{L}/gu, (c) => (c === c.toLowerCase() ? c.toUpperCase() : c.toLowerCase()));
  const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  const grouped = (number, language, options) => {
    if ((language !== undefined && language !== 'en-US') || options !== undefined) {
      throw new RangeError('numbers are printed in en-US without options here');
    }
    if (!Number.isFinite(number)) return Number.isNaN(number) ? 'NaN' : number < 0 ? '-∞' : '∞';
    const [whole, fraction] = Math.abs(number).toFixed(3).split('.');
    const rest = fraction.replace(/0+$/, '');
    const text = whole.replace(/\B(?=(\d{3})+$)/g, ',') + (rest === '' ? '' : '.' + rest);
    return number < 0 ? '-' + text : text;
  };
  define(String.prototype, {
    localeCompare(other) {
      const [a, b] = [String(this), String(other)];
      return order(bare(a), bare(b)) || order(a.normalize('NFD').toLowerCase(), b.normalize('NFD').toLowerCase())
        || order(swapped(a), swapped(b));
    },
  });
  define(Number.prototype, { toLocaleString(language, options) { return grouped(Number(this), language, options); } });
  define(Math, { random: () => native.random() });
  define(globalThis, {
    Buffer, Date: HostDate, TextDecoder, TextEncoder, URL, URLSearchParams, console, crypto,
    process: { env: JSON.parse(env) },
    structuredClone: (value) => cloned(value, new Map()),
  });
})
