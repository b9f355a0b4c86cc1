// The languages that we highlight, and the names that replies use for them after ```.

const NAMES = {
  bash: "sh shell zsh console shellscript",
  c: "h",
  cpp: "c++ cc cxx hpp",
  csharp: "cs c# dotnet",
  css: "",
  dart: "",
  diff: "patch",
  docker: "dockerfile containerfile",
  elixir: "ex exs",
  go: "golang",
  graphql: "gql",
  haskell: "hs",
  hcl: "terraform tf",
  ini: "cfg conf properties dotenv env",
  java: "",
  javascript: "js mjs cjs node",
  json: "json5 jsonc jsonl ndjson geojson",
  jsx: "",
  julia: "jl",
  kotlin: "kt kts",
  latex: "tex",
  lua: "",
  makefile: "make mk",
  markdown: "md",
  markup: "html htm xml svg xhtml vue",
  matlab: "octave",
  nginx: "",
  perl: "pl",
  php: "",
  powershell: "ps1 pwsh ps",
  protobuf: "proto",
  python: "py python3 py3 pyi",
  r: "",
  ruby: "rb",
  rust: "rs",
  scala: "sc",
  scss: "",
  sql: "mysql postgresql postgres psql sqlite plsql tsql",
  swift: "",
  toml: "",
  tsx: "",
  typescript: "ts mts cts",
  yaml: "yml",
};

const LANGUAGES = new Map();
for (const [language, others] of Object.entries(NAMES)) {
  for (const name of [language, ...others.split(" ")]) LANGUAGES.set(name, language);
}
LANGUAGES.delete("");

/** Prism's name of a language; undefined if we do not highlight it. */
export const languageOf = (name) => LANGUAGES.get(name.toLowerCase());
