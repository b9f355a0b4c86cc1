import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const file = (path) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  plugins: [react()],
  // The modules of this checkout. An app with parley-client of npm has neither this nor the next.
  resolve: {
    alias: {
      "parley-client/ai": file("../../clients/javascript/ai.js"),
      "./parley.js": file("../../static/parley.js"),
    },
  },
  server: { fs: { allow: [file("../..")] } },
});
