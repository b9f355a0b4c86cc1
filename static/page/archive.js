// Splits a file of chats into conversations: JSON, also inside a ZIP. The file is read in pieces,
// and only one conversation, or one picture, is in memory. The server interprets the conversations.

const PIECE = 2 ** 18; // bytes per read
// Bytes per read of a ZIP: a browser decompresses a whole piece at once, up to a thousandfold.
const PACKED_PIECE = 2 ** 15;
const MAX_CONVERSATION = 2 ** 24; // bytes, also of a line with a file
const MAX_PICTURE = 2 ** 25; // bytes
const MAX_RATIO = 200; // of decompressed to compressed bytes; text has about ten
const MAX_MEMBERS = 1000; // with conversations, as for `flask import`
const MAX_DIRECTORY = 2 ** 25; // bytes of a ZIP's central directory: about 300,000 members

/** Why a file cannot be read: a sentence for the person. */
export class ArchiveError extends Error {}

/**
 * Yields the conversations of a file: the `place` in the file, and the JSON as `text` and parsed as
 * `value`, or else the `problem`. An export of Parley also has files (`isFile`). Calls
 * `onRead(read, all)` with bytes. Adds the pictures of a ZIP to `pictures`: functions that return
 * the bytes as a Blob, or null, by the ids by which conversations name them. Throws an
 * ArchiveError.
 */
export async function* readArchive(file, onRead = () => {}, pictures = new Map()) {
  const members = (await isZip(file))
    ? await listMembers(file, pictures)
    : [{ name: "", blob: file, isPacked: false }];
  const all = members.reduce((sum, { blob }) => sum + blob.size, 0);
  let read = 0;
  const count = (bytes) => onRead((read += bytes), all);
  // The decompressed bytes that we still accept, over all members.
  let left = Math.max(MAX_CONVERSATION, MAX_RATIO * all);
  const isBomb = (bytes) => (left -= bytes) < 0;
  for (const { name, blob, isPacked, end } of members) {
    const content = isPacked ? unpack(name, blob, end, count, isBomb) : pieces(blob, PIECE, count);
    yield* objects(content, name);
  }
}

async function bytesOf(blob) {
  try {
    return await blob.arrayBuffer();
  } catch {
    throw new ArchiveError(
      "The file cannot be read. Was it changed or moved meanwhile? Choose it again.",
    );
  }
}

async function* pieces(blob, size, count) {
  for (let at = 0; at < blob.size; at += size) {
    const piece = await bytesOf(blob.slice(at, at + size));
    count(piece.byteLength);
    yield new Uint8Array(piece);
  }
}

// JSON: objects in a sequence, as in NDJSON, or in one array

const [QUOTE, BACKSLASH] = [0x22, 0x5c];
const isOpening = (byte) => byte === 0x7b || byte === 0x5b;
const isClosing = (byte) => byte === 0x7d || byte === 0x5d;

/** Whether this is the first line of a Parley export, which is not a conversation. */
export const isHeader = (value) => Boolean(value && "parley" in value);
const FILE_LINE = '{"file"'; // begins the line of a file in a Parley export

async function* objects(content, name) {
  const scanner = new Scanner(name);
  for await (const piece of content) yield* scanner.feed(piece);
  scanner.end();
}

/** The length of a byte order mark (U+FEFF in UTF-8) at the start, if there is one. */
const lengthOfMark = ([first, second, third]) =>
  first === 0xef && second === 0xbb && third === 0xbf ? 3 : 0;

/**
 * Finds the objects of a JSON file in one pass over its bytes. Bytes below 0x80, such as JSON's
 * punctuation, never occur inside another character of UTF-8.
 */
class Scanner {
  constructor(name) {
    this.where = name ? `${name} in the ZIP` : "The file";
    this.prefix = name ? `${name}, conversation` : "Conversation";
    this.position = 0; // of the piece in the file
    this.number = 0; // of the object, starting at 1
    this.isList = this.isOver = false;
    this.depth = 0; // of nesting; 0 between objects
    this.isString = this.isEscaped = false;
  }

  /** Yields the objects that end in this piece. */
  *feed(piece) {
    let start = 0; // of the object in this piece
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

  /** The object that has just ended, with its place in the file. */
  placed() {
    const place = `${this.prefix} ${this.number}, at byte ${this.from}`;
    const taken = this.take();
    const isFile = this.start === FILE_LINE;
    if (isHeader(taken.value) || isFile) this.number--;
    return { place, isFile, ...taken };
  }

  step(byte, at) {
    if (this.isEscaped) this.isEscaped = false;
    else if (this.isString) {
      if (byte === BACKSLASH) this.isEscaped = true;
      else if (byte === QUOTE) this.isString = false;
    } else if (this.depth === 0) this.stepBetween(String.fromCharCode(byte), at);
    else if (byte === QUOTE) this.isString = true;
    else if (isOpening(byte)) this.depth++;
    else if (isClosing(byte)) this.depth--;
  }

  stepBetween(sign, at) {
    if (sign === "{" && !this.isOver) this.depth = 1;
    else if (sign === "[" && !this.isList && !this.number) this.isList = true;
    else if (sign === "]" && this.isList && !this.isOver) this.isOver = true;
    else if (!this.mayStandBetween(sign)) {
      const what = `unexpected content at byte ${this.position + at}`;
      throw new ArchiveError(`${this.where} is not a JSON list of conversations: ${what}.`);
    }
  }

  mayStandBetween(sign) {
    return " \t\r\n".includes(sign) || (sign === "," && this.isList && !this.isOver);
  }

  begin(at) {
    this.from = this.position + at;
    this.number++;
    this.parts = [];
    this.size = 0;
    this.start = ""; // its first characters
  }

  /** Stores a part of the object; drops all of them once the object is too large. */
  keep(part) {
    const more = part.subarray(0, FILE_LINE.length - this.start.length);
    this.start += String.fromCharCode(...more);
    this.size += part.length;
    if (this.size > MAX_CONVERSATION) this.parts = [];
    else this.parts.push(part);
  }

  take() {
    const parts = this.parts;
    this.parts = []; // frees the memory while we read on
    if (this.size > MAX_CONVERSATION) return { problem: "It is larger than 16 MB." };
    const decoder = new TextDecoder("utf-8", { fatal: true });
    try {
      const texts = parts.map((part) => decoder.decode(part, { stream: true }));
      const text = texts.join("") + decoder.decode();
      return { text, value: JSON.parse(text) };
    } catch (error) {
      return { problem: error instanceof TypeError ? "It is not UTF-8." : "It is not JSON." };
    }
  }

  end() {
    const whole = this.isList ? this.isOver : this.number > 0;
    if (whole && this.depth === 0) return;
    if (!this.number) {
      throw new ArchiveError(`${this.where} is empty, or ends before its first conversation.`);
    }
    throw new ArchiveError(
      `${this.where} is incomplete: it ends ${this.depth ? "within" : "after"} conversation ${this.number}.`,
    );
  }
}

// ZIP, as in PKWARE's APPNOTE.TXT: section 4.3 has the records, 4.5.3 the extra field of ZIP64

const RECORDS = {
  local: 0x04034b50,
  member: 0x02014b50,
  end: 0x06054b50,
  end64: 0x06064b50,
  locator64: 0x07064b50,
};
const [STORED, DEFLATED] = [0, 8];
// ChatGPT also exports conversations-000.json and so on.
const WANTED = /(?:^|\/)conversations[^/]*\.json$/i;
// A picture's name begins with its id: `file-AbC-cat.jpg`, `file_0123-sanitized.png`, `file-AbC.dat`.
const PICTURE = /(?:^|\/)(file[-_][0-9A-Za-z]+)[^/]*$/;
const MAX_16 = 0xffff;
const MAX_32 = 0xffffffff; // says that the number is in the extra field of ZIP64

const viewOf = async (blob) => new DataView(await bytesOf(blob));
const readUint64 = (view, at) => Number(view.getBigUint64(at, true));

async function isZip(file) {
  const view = await viewOf(file.slice(0, 4));
  return view.byteLength === 4 && [RECORDS.local, RECORDS.end].includes(view.getUint32(0, true));
}

/**
 * The members with conversations: the `name`, the bytes as a `blob`, whether these are compressed
 * (`isPacked`), and the GZIP trailer for them (`end`). Adds the pictures to `pictures`.
 */
async function listMembers(file, pictures) {
  try {
    const members = [];
    const { wanted, found } = await readDirectory(file);
    for (const member of wanted) members.push(await locate(file, member));
    // Overlapping members: a ZIP bomb.
    if (members.reduce((sum, { blob }) => sum + blob.size, 0) > file.size) throw new RangeError();
    let left = Math.max(MAX_CONVERSATION, MAX_RATIO * file.size); // bytes of pictures, unpacked
    const isBomb = (bytes) => (left -= bytes) < 0;
    for (const [id, member] of found) pictures.set(id, () => readPicture(file, member, isBomb));
    return members;
  } catch (error) {
    // DataView throws a RangeError for an offset outside its bytes.
    if (error instanceof RangeError) throw new ArchiveError("The ZIP is damaged or incomplete.");
    throw error;
  }
}

async function locate(file, { name, size, at, method, isEncrypted, end }) {
  if (isEncrypted) throw new ArchiveError(`${name} in the ZIP is encrypted. Unpack it first.`);
  if (![STORED, DEFLATED].includes(method)) {
    throw new ArchiveError(`${name} is packed in a way that we cannot read. Unpack it first.`);
  }
  const header = await viewOf(file.slice(at, at + 30));
  if (header.getUint32(0, true) !== RECORDS.local) throw new RangeError();
  const start = at + 30 + header.getUint16(26, true) + header.getUint16(28, true);
  return { name, blob: file.slice(start, start + size), isPacked: method === DEFLATED, end };
}

/** A picture as a Blob; null if it is damaged, too large, or if there have been too many. */
async function readPicture(file, member, isBomb) {
  try {
    const { name, blob, isPacked, end } = await locate(file, member);
    if (!isPacked) return blob.size <= MAX_PICTURE ? blob : null;
    const parts = [];
    let size = 0;
    for await (const part of unpack(name, blob, end, () => {}, isBomb)) {
      if ((size += part.length) > MAX_PICTURE) return null;
      parts.push(part);
    }
    return new Blob(parts);
  } catch (error) {
    if (error instanceof RangeError || error instanceof ArchiveError) return null;
    throw error;
  }
}

/** The members with conversations (`wanted`), and those with pictures, by their ids (`found`). */
async function readDirectory(file) {
  const { at: start, size } = await findDirectory(file);
  const view = await viewOf(file.slice(start, start + Math.min(size, MAX_DIRECTORY)));
  if (view.byteLength < size) throw new RangeError();
  const members = [];
  const found = new Map();
  for (let at = 0; at < view.byteLength;) {
    if (view.getUint32(at, true) !== RECORDS.member) throw new RangeError();
    const [ofName, ofExtra, ofComment] = [28, 30, 32].map((place) =>
      view.getUint16(at + place, true),
    );
    const name = new TextDecoder()
      .decode(new Uint8Array(view.buffer, at + 46, ofName))
      .replaceAll("\\", "/"); // .NET wrote backslashes
    const read = () => ({ name, ...readMember(view, at, at + 46 + ofName, ofExtra) });
    const id = PICTURE.exec(name)?.[1];
    if (WANTED.test(name)) members.push(read());
    else if (id && !found.has(id)) found.set(id, read());
    at += 46 + ofName + ofExtra + ofComment;
  }
  if (!members.length) throw new ArchiveError("There is no conversations.json in this ZIP.");
  if (members.length > MAX_MEMBERS) {
    throw new ArchiveError(`This ZIP has more than ${MAX_MEMBERS} files of conversations.`);
  }
  const wanted = members.toSorted((one, other) => (one.name < other.name ? -1 : 1));
  return { wanted, found };
}

function readMember(view, at, extra, ofExtra) {
  // The uncompressed size, the compressed size, the offset of the local header.
  const numbers = [24, 20, 42].map((place) => view.getUint32(at + place, true));
  for (let field = extra; field < extra + ofExtra; field += 4 + view.getUint16(field + 2, true)) {
    if (view.getUint16(field, true) !== 1) continue;
    let next = field + 4; // the field has only the numbers that are MAX_32
    numbers.forEach((number, place) => {
      if (number === MAX_32) [numbers[place], next] = [readUint64(view, next), next + 8];
    });
  }
  const [unpacked, size, offset] = numbers;
  const end = new DataView(new ArrayBuffer(8));
  end.setUint32(0, view.getUint32(at + 16, true), true); // the CRC
  end.setUint32(4, unpacked, true); // modulo 2 ** 32, as GZIP has it
  const isEncrypted = Boolean(view.getUint16(at + 8, true) & 1);
  return { size, end, at: offset, method: view.getUint16(at + 10, true), isEncrypted };
}

/**
 * Finds the central directory: by a record at the file's end, before a comment of up to 65,535
 * bytes.
 */
async function findDirectory(file) {
  const from = Math.max(0, file.size - 22 - MAX_16);
  const view = await viewOf(file.slice(from));
  let at = view.byteLength - 22;
  // A comment may contain the same signature. Searching beyond the first byte throws a RangeError.
  while (
    view.getUint32(at, true) !== RECORDS.end ||
    at + 22 + view.getUint16(at + 20, true) > view.byteLength
  ) {
    at--;
  }
  const [size, offset] = [12, 16].map((place) => view.getUint32(at + place, true));
  const has64 = at >= 20 && view.getUint32(at - 20, true) === RECORDS.locator64;
  if (!has64) return { at: offset, size };
  const place = readUint64(view, at - 12);
  const end = await viewOf(file.slice(place, place + 56));
  if (end.getUint32(0, true) !== RECORDS.end64) throw new RangeError();
  return { at: readUint64(end, 48), size: readUint64(end, 40) };
}

/** Wraps compressed bytes as GZIP (RFC 1952): then the browser checks their length and CRC. */
async function* asGZIP(blob, end, count) {
  yield Uint8Array.of(0x1f, 0x8b, DEFLATED, 0, 0, 0, 0, 0, 0, 0xff);
  yield* pieces(blob, PACKED_PIECE, count);
  yield end;
}

async function* unpack(name, blob, end, count, isBomb) {
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
    throw error instanceof ArchiveError
      ? error
      : new ArchiveError(`${name} in the ZIP is damaged.`);
  };
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(fail);
      if (done) return;
      if (isBomb(value.length)) {
        throw new ArchiveError(
          `${name} unpacks to more than ${MAX_RATIO} times what is in the ZIP.`,
        );
      }
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
