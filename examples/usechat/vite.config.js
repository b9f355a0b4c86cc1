import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const file = (path) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  plugins: [react()],
  // Uses the modules of this checkout. With parley-client from npm, you need neither `resolve` nor
  // `server`.
  resolve: {
    alias: {
      "parley-client/ai": file("../../clients/javascript/ai.js"),
      "./parley.js": file("../../static/parley.js"),
    },
  },
  server: { fs: { allow: [file("../..")] } },
});
