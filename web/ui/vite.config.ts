import { writeFileSync } from "node:fs";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const outDir = "../static/dist";

const api = { target: process.env.CORDON_URL ?? "http://127.0.0.1:8080", changeOrigin: true, secure: false };

export default defineConfig({
  plugins: [
    react(),
    {
      // The Go side embeds the folder; an empty one must still exist.
      name: "keep-folder",
      closeBundle: () => writeFileSync(new URL(`${outDir}/.gitkeep`, import.meta.url), ""),
    },
  ],
  build: {
    outDir,
    emptyOutDir: true,
    target: "es2023",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 800,
  },
  server: {
    port: 5173,
    strictPort: true,
    proxy: { "/api": api },
  },
  preview: { port: 4173, strictPort: true, proxy: { "/api": api } },
  test: {
    environment: "jsdom",
    include: ["src/**/*.test.{ts,tsx}"],
    setupFiles: ["src/test/setup.ts"],
    pool: "threads",
  },
});
