// Makes pictures smaller, and uploads those of an import.

import { api } from "./api.js";

const MAX_SIDE = 1568; // pixels: Anthropic's models see no more (docs.anthropic.com, "Vision")
const MAX_BYTES = 100_000_000; // of a picture that the browser is asked to read
const QUALITY = 0.85;
const FEW_COLOURS = 4096; // more than a drawing or a screenshot has, and fewer than a photo
const JPEG = [0xff, 0xd8, 0xff];
const PNG = [0x89, 0x50, 0x4e, 0x47];

/** The browser cannot read this picture. */
export class UnreadablePicture extends Error {}

/**
 * Uploads a picture: a JPEG or PNG as it is; what the server does not take, smaller. Resolves to the
 * file as the server describes it, or null if the browser cannot read the picture. `maxFile` is the
 * server's limit, in bytes. Throws a refusal by Parley; the `options` are those of `api`.
 */
export async function uploadPicture(blob, maxFile, options) {
  const send = (bytes) => api("POST", "files", { ...options, bytes });
  const isTaken = (await startsLike(blob, JPEG)) || (await startsLike(blob, PNG));
  if (isTaken && blob.size <= maxFile) {
    try {
      return await send(blob);
    } catch (error) {
      if (error.status !== 400) throw error; // otherwise it has too many pixels, for example
    }
  }
  const made = await shrink(blob).catch((error) => {
    if (error instanceof UnreadablePicture) return null;
    throw error;
  });
  return made && send(made.blob);
}

/** Whether a file begins with these bytes. */
async function startsLike(blob, bytes) {
  const start = new Uint8Array(await blob.slice(0, bytes.length).arrayBuffer());
  return bytes.every((byte, place) => start[place] === byte);
}

/**
 * Draws the picture anew, upright, with at most MAX_SIDE pixels a side, and without anything else
 * that the file had, such as the place where a photo was taken. Of an animation, it is the first
 * frame. Resolves to `{ blob, width, height }`. The blob is a JPEG, on white where the picture is
 * transparent; or a PNG, if the picture has few colours or is transparent, and the PNG is smaller.
 * Throws UnreadablePicture.
 */
export async function shrink(blob) {
  const canvas = await drawn(blob);
  const { width, height } = canvas;
  // A photo is drawn and looked at in two tasks, between which the page can respond.
  await new Promise((resolve) => setTimeout(resolve));
  const kind = (await startsLike(blob, JPEG)) ? "" : mayBePNG(canvas);
  const png = kind ? await canvas.convertToBlob({ type: "image/png" }) : null;
  if (kind === "transparent") fillBehind(canvas);
  const jpeg = await canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY });
  return { blob: png && png.size < jpeg.size ? png : jpeg, width, height };
}

async function drawn(blob) {
  if (blob.size > MAX_BYTES) throw new UnreadablePicture();
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    throw new UnreadablePicture();
  }
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((side) =>
    Math.max(1, Math.round(side * scale)),
  );
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "medium"; // "high" takes longer, and looks the same
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close(); // frees its memory now: the garbage collector would take its time
  return canvas;
}

/** Whether the picture is "transparent", or has "few colours"; otherwise "". */
function mayBePNG(canvas) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const pixels = new Uint32Array(data.buffer);
  const colours = new Set();
  for (const pixel of pixels) {
    if (pixel < 0xff000000) return "transparent"; // the highest byte is the opacity
    if (colours.size <= FEW_COLOURS) colours.add(pixel);
  }
  return colours.size <= FEW_COLOURS ? "few colours" : "";
}

function fillBehind(canvas) {
  const context = canvas.getContext("2d");
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
}
