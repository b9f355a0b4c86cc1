import { useEffect, useRef, useState } from "react";
import { transport } from "./chats.js";

/** The image of a message part. Until it has been fetched, the browser shows the alternative text. */
export function Picture({ part }) {
  const [blob, setBlob] = useState(null);
  const image = useRef(null);
  useEffect(() => {
    // The browser itself would send no token.
    transport.file(part).then(setBlob, () => {});
  }, [part.url]);
  useEffect(() => {
    if (!blob) return undefined;
    const url = URL.createObjectURL(blob);
    image.current.src = url;
    return () => URL.revokeObjectURL(url);
  }, [blob]);
  return <img ref={image} alt={part.providerMetadata?.parley?.alt ?? "Image"} />;
}
