// Uploads pictures: a JPEG or PNG as it is; what the server does not take, as a smaller JPEG.

import { api } from "./api.js";

const MAX_SIDE = 1568; // pixels: Anthropic's models see no more (docs.anthropic.com, "Vision")
const QUALITY = 0.85;
const STARTS = [
  [0xff, 0xd8, 0xff], // JPEG
  [0x89, 0x50, 0x4e, 0x47], // PNG
];

/**
 * Uploads a picture. Resolves to the file as the server describes it, or null if the browser cannot
 * read the picture. `maxFile` is the server's limit, in bytes. Throws a refusal by Parley; the
 * `options` are those of `api`.
 */
export async function uploadPicture(blob, maxFile, options) {
  const send = (bytes) => api("POST", "files", { ...options, bytes });
  if (blob.size <= maxFile && (await isTaken(blob))) {
    try {
      return await send(blob);
    } catch (error) {
      if (error.status !== 400) throw error; // otherwise it has too many pixels, for example
    }
  }
  const jpeg = await toJPEG(blob);
  return jpeg && send(jpeg);
}

/** Whether these bytes begin as those of a kind that the server takes. */
async function isTaken(blob) {
  const start = new Uint8Array(await blob.slice(0, 4).arrayBuffer());
  return STARTS.some((bytes) => bytes.every((byte, place) => start[place] === byte));
}

/**
 * The picture as a JPEG whose longest side has at most MAX_SIDE pixels, upright, and on white where
 * it is transparent. Of an animation, it is the first frame. Null if the browser cannot read it.
 */
export async function toJPEG(blob) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    return null;
  }
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((side) =>
    Math.max(1, Math.round(side * scale)),
  );
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY });
}
