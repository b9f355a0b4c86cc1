// The bytes of pictures that are not sent yet, in IndexedDB: they outlive a reload, and are too large
// for sessionStorage. If the browser offers no IndexedDB, they last as long as the page.

const MAX_AGE = 30 * 86_400_000; // ms; when a tab is closed, its pictures stay behind

let opening = null;

function open() {
  // Several servers behind one origin stay apart by their paths.
  const request = indexedDB.open(`parley ${new URL(".", location).pathname}`, 1);
  request.onupgradeneeded = () => request.result.createObjectStore("pictures");
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Makes a request to the store. Resolves to its result; undefined if that is not possible. */
async function ask(mode, requestTo) {
  try {
    opening ??= open();
    const transaction = (await opening).transaction("pictures", mode);
    const request = requestTo(transaction.objectStore("pictures"));
    return await new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error); // the disk is full, for example
    });
  } catch {
    return undefined;
  }
}

/** A key for a picture. Keys are in the order of time, so that old ones can be removed. */
export const newPictureKey = () => `${Date.now()} ${Math.random()}`;

/** Stores a Blob, and removes those that are too old. */
export const storePicture = (key, blob) =>
  ask("readwrite", (store) => {
    store.delete(IDBKeyRange.upperBound(`${Date.now() - MAX_AGE}`));
    return store.put(blob, key);
  });

/** The Blob; undefined if it is not there. */
export const storedPicture = (key) => ask("readonly", (store) => store.get(key));

export const removePicture = (key) => ask("readwrite", (store) => store.delete(key));

/** Removes all pictures of a user who signs out. */
export const removeAllPictures = () => ask("readwrite", (store) => store.clear());
