// The files that chats come in, read piece by piece: JSON, also within a ZIP. No more of one is

// held than a conversation.

const PIECE = 2 ** 18; // bytes that are read at a time
// Of a ZIP: a browser unpacks a piece whole, and it may unfold a thousandfold.
const PACKED_PIECE = 2 ** 15;
const LARGEST = 2 ** 24; // bytes of a conversation
const DEEPEST = 200; // levels that one is nested; theirs have some ten
const FOLD = 200; // times as much as is packed that may come out of a ZIP; text has some ten
const MOST_MEMBERS = 1000; // that hold conversations, as `flask import` takes
const DIRECTORY = 2 ** 25; // bytes of a ZIP's list of its members, that is some 300,000 of them

/** What is wrong with a file, in a sentence. It is not read on. */
export class Fault extends Error {}

/**
 * Yields the conversations of a file, each with its `place` in it, and its `value`, or the
 * `problem` for which it has none. `onRead` is told how many bytes were read, and of how many.
 * Throws a Fault.
 */
export async function* readArchive(file, onRead = () => {}) {
  const members = (await isZip(file))
    ? await listMembers(file)
    : [{ name: "", blob: file, isPacked: false }];
  const all = members.reduce((sum, { blob }) => sum + blob.size, 0);
  let read = 0;
  const count = (bytes) => onRead((read += bytes), all);
  // Bytes that may come out, whichever members they are of.
  let left = Math.max(LARGEST, FOLD * all);
  const isTrap = (bytes) => (left -= bytes) < 0;
  for (const { name, blob, isPacked, end } of members) {
    const content = isPacked ? unpack(name, blob, end, count, isTrap) : pieces(blob, PIECE, count);
    yield* objects(content, name);
  }
}

async function bytesOf(blob) {
  try {
    return await blob.arrayBuffer();
  } catch {
    throw new Fault("The file cannot be read. Was it changed or moved meanwhile? Choose it again.");
  }
}

async function* pieces(blob, size, count) {
  for (let at = 0; at < blob.size; at += size) {
    const piece = await bytesOf(blob.slice(at, at + size));
    count(piece.byteLength);
    yield new Uint8Array(piece);
  }
}

// JSON: objects one behind the other, as in NDJSON, or as the items of one array

const [QUOTE, BACKSLASH] = [0x22, 0x5c];
const isOpening = (byte) => byte === 0x7b || byte === 0x5b;
const isClosing = (byte) => byte === 0x7d || byte === 0x5d;

/** Whether an export of Parley's begins so, which is no conversation. */
export const isHeader = (value) => Boolean(value && "parley" in value);

async function* objects(content, name) {
  const scanner = new Scanner(name);
  for await (const piece of content) yield* scanner.feed(piece);
  scanner.end();
}

/** How many bytes a byte order mark has: U+FEFF, in UTF-8. */
const lengthOfMark = ([first, second, third]) =>
  first === 0xef && second === 0xbb && third === 0xbf ? 3 : 0;

/**
 * Finds where the objects begin and end. It looks at bytes: the signs of JSON are no part of any
 * other character in UTF-8.
 */
class Scanner {
  constructor(name) {
    this.where = name ? `${name} in the ZIP` : "The file";
    this.prefix = name ? `${name}, conversation` : "Conversation";
    this.position = 0; // of the piece in the file
    this.number = 0; // of the object, from 1 on
    this.isList = this.isOver = false;
    this.depth = 0; // within the object
    this.isString = this.isEscaped = false;
  }

  /** Yields what ends in this piece. */
  *feed(piece) {
    let start = 0; // of what is the object's
    for (let at = this.position === 0 ? lengthOfMark(piece) : 0; at < piece.length; at++) {
      const depth = this.depth;
      this.step(piece[at], at);
      if (depth === 0 && this.depth === 1) {
        start = at;
        this.begin(at);
      } else if (depth === 1 && this.depth === 0) {
        this.keep(piece.subarray(start, at + 1));
        yield this.placed();
      }
    }
    if (this.depth > 0) this.keep(piece.subarray(start));
    this.position += piece.length;
  }

  /** The object that has ended, with its place in the file. */
  placed() {
    const place = `${this.prefix} ${this.number}, from byte ${this.from} on`;
    const taken = this.take();
    if (isHeader(taken.value)) this.number--;
    return { place, ...taken };
  }

  step(byte, at) {
    if (this.isEscaped) this.isEscaped = false;
    else if (this.isString) {
      if (byte === BACKSLASH) this.isEscaped = true;
      else if (byte === QUOTE) this.isString = false;
    } else if (this.depth === 0) this.stepBetween(String.fromCharCode(byte), at);
    else if (byte === QUOTE) this.isString = true;
    else if (isOpening(byte)) this.deepest = Math.max(this.deepest, ++this.depth);
    else if (isClosing(byte)) this.depth--;
  }

  stepBetween(sign, at) {
    if (sign === "{" && !this.isOver) this.depth = 1;
    else if (sign === "[" && !this.isList && !this.number) this.isList = true;
    else if (sign === "]" && this.isList && !this.isOver) this.isOver = true;
    else if (!this.mayStandBetween(sign)) {
      const what = `at byte ${this.position + at} there is something else`;
      throw new Fault(`${this.where} is no list of conversations in JSON: ${what}.`);
    }
  }

  mayStandBetween(sign) {
    return " \t\r\n".includes(sign) || (sign === "," && this.isList && !this.isOver);
  }

  begin(at) {
    this.from = this.position + at;
    this.number++;
    this.parts = [];
    this.size = this.deepest = 0;
  }

  /** Keeps a part of the object, unless that is too large by now. */
  keep(part) {
    this.size += part.length;
    if (this.size > LARGEST) this.parts = [];
    else this.parts.push(part);
  }

  take() {
    const parts = this.parts;
    this.parts = []; // else it would be held while the next is looked for
    if (this.size > LARGEST) return { problem: "It is larger than 16 MB." };
    if (this.deepest > DEEPEST) {
      return { problem: `It is nested more than ${DEEPEST} levels deep.` };
    }
    const decoder = new TextDecoder("utf-8", { fatal: true });
    try {
      const texts = parts.map((part) => decoder.decode(part, { stream: true }));
      return { value: JSON.parse(texts.join("") + decoder.decode()) };
    } catch (error) {
      return { problem: error instanceof SyntaxError ? "It is not JSON." : "It is not UTF-8." };
    }
  }

  end() {
    const whole = this.isList ? this.isOver : this.number > 0;
    if (whole && this.depth === 0) return;
    if (!this.number) {
      throw new Fault(`${this.where} is empty, or ends before its first conversation.`);
    }
    throw new Fault(
      `${this.where} is not whole: it ends ${this.depth ? "within" : "behind"} conversation ${this.number}.`,
    );
  }
}

// ZIP, by PKWARE's APPNOTE.TXT: 4.3 has the records, 4.5.3 the field of ZIP64

const RECORDS = {
  local: 0x04034b50,
  member: 0x02014b50,
  end: 0x06054b50,
  end64: 0x06064b50,
  locator64: 0x07064b50,
};
const [STORED, DEFLATED] = [0, 8];
// ChatGPT has conversations-000.json and so on, too.
const WANTED = /(?:^|\/)conversations[^/]*\.json$/i;
const MAX_16 = 0xffff;
const MAX_32 = 0xffffffff; // then the number stands in the field of ZIP64

const viewOf = async (blob) => new DataView(await bytesOf(blob));
const long = (view, at) => Number(view.getBigUint64(at, true));

async function isZip(file) {
  const view = await viewOf(file.slice(0, 4));
  return view.byteLength === 4 && [RECORDS.local, RECORDS.end].includes(view.getUint32(0, true));
}

/**
 * The members that hold conversations: each with its name, what is packed, whether it is, and its
 * `end` in GZIP.
 */
async function listMembers(file) {
  try {
    const members = [];
    for (const { name, size, at, ...how } of await readDirectory(file)) {
      const isKnown = [STORED, DEFLATED].includes(how.method);
      if (how.isEncrypted) throw new Fault(`${name} in the ZIP is encrypted. Unpack it first.`);
      if (!isKnown) {
        throw new Fault(`${name} is packed in a way that is not known here. Unpack it first.`);
      }
      const header = await viewOf(file.slice(at, at + 30));
      if (header.getUint32(0, true) !== RECORDS.local) throw new RangeError();
      const start = at + 30 + header.getUint16(26, true) + header.getUint16(28, true);
      members.push({
        name,
        blob: file.slice(start, start + size),
        isPacked: how.method === DEFLATED,
        end: how.end,
      });
    }
    // Members that lie over each other would unfold without a bound.
    if (members.reduce((sum, { blob }) => sum + blob.size, 0) > file.size) throw new RangeError();
    return members;
  } catch (error) {
    // A DataView ends there.
    if (error instanceof RangeError) throw new Fault("The ZIP is damaged, or not whole.");
    throw error;
  }
}

async function readDirectory(file) {
  const { at: start, size } = await findDirectory(file);
  const view = await viewOf(file.slice(start, start + Math.min(size, DIRECTORY)));
  if (view.byteLength < size) throw new RangeError();
  const members = [];
  for (let at = 0; at < view.byteLength;) {
    if (view.getUint32(at, true) !== RECORDS.member) throw new RangeError();
    const [ofName, ofExtra, ofComment] = [28, 30, 32].map((place) =>
      view.getUint16(at + place, true),
    );
    const name = new TextDecoder()
      .decode(new Uint8Array(view.buffer, at + 46, ofName))
      .replaceAll("\\", "/"); // as of .NET
    if (WANTED.test(name)) {
      members.push({ name, ...readMember(view, at, at + 46 + ofName, ofExtra) });
    }
    at += 46 + ofName + ofExtra + ofComment;
  }
  if (!members.length) throw new Fault("There is no conversations.json in this ZIP.");
  if (members.length > MOST_MEMBERS) {
    throw new Fault(`This ZIP has more than ${MOST_MEMBERS} files of conversations.`);
  }
  return members.toSorted((one, other) => (one.name < other.name ? -1 : 1));
}

function readMember(view, at, extra, ofExtra) {
  // Unpacked, packed, where.
  const numbers = [24, 20, 42].map((place) => view.getUint32(at + place, true));
  for (let field = extra; field < extra + ofExtra; field += 4 + view.getUint16(field + 2, true)) {
    if (view.getUint16(field, true) !== 1) continue;
    let next = field + 4; // it has only those that are too large
    numbers.forEach((number, place) => {
      if (number === MAX_32) [numbers[place], next] = [long(view, next), next + 8];
    });
  }
  const [unpacked, size, offset] = numbers;
  const end = new DataView(new ArrayBuffer(8));
  end.setUint32(0, view.getUint32(at + 16, true), true); // the CRC
  end.setUint32(4, unpacked, true); // its lower half
  const isEncrypted = Boolean(view.getUint16(at + 8, true) & 1);
  return { size, end, at: offset, method: view.getUint16(at + 10, true), isEncrypted };
}

/**
 * Where the list of members is. It is named at the file's end, before a comment of at most 65,535
 * bytes.
 */
async function findDirectory(file) {
  const from = Math.max(0, file.size - 22 - MAX_16);
  const view = await viewOf(file.slice(from));
  let at = view.byteLength - 22;
  // A comment may hold the same bytes. Before the first byte, there is a RangeError.
  while (
    view.getUint32(at, true) !== RECORDS.end ||
    at + 22 + view.getUint16(at + 20, true) > view.byteLength
  ) {
    at--;
  }
  const [size, offset] = [12, 16].map((place) => view.getUint32(at + place, true));
  const has64 = at >= 20 && view.getUint32(at - 20, true) === RECORDS.locator64;
  if (!has64) return { at: offset, size };
  const place = long(view, at - 12);
  const end = await viewOf(file.slice(place, place + 56));
  if (end.getUint32(0, true) !== RECORDS.end64) throw new RangeError();
  return { at: long(end, 48), size: long(end, 40) };
}

/**
 * What is packed, as GZIP has it (RFC 1952), of which a browser checks that it is whole, and
 * unchanged.
 */
async function* asGZIP(blob, end, count) {
  yield Uint8Array.of(0x1f, 0x8b, DEFLATED, 0, 0, 0, 0, 0, 0, 0xff);
  yield* pieces(blob, PACKED_PIECE, count);
  yield end;
}

async function* unpack(name, blob, end, count, isTrap) {
  const packed = asGZIP(blob, end, count);
  const pull = async (controller) => {
    const { value, done } = await packed.next();
    if (done) controller.close();
    else controller.enqueue(value);
  };
  const stream = new ReadableStream({ pull }, { highWaterMark: 0 }).pipeThrough(
    new DecompressionStream("gzip"),
  );
  const reader = stream.getReader();
  const fail = (error) => {
    throw error instanceof Fault ? error : new Fault(`${name} in the ZIP is damaged.`);
  };
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(fail);
      if (done) return;
      if (isTrap(value.length)) {
        throw new Fault(`${name} unfolds to more than ${FOLD} times what is in the ZIP.`);
      }
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
