// What the page of uppy.mjs runs: Uppy with its tus plugin, as a frontend sets it up, driven from outside.
import Uppy from "@uppy/core";
import Tus from "@uppy/tus";

// Sends what a person has chosen; the page can be asked how it goes.
window.begin = (endpoint, name, meta, options) => {
  const uppy = new Uppy();
  uppy.use(Tus, { endpoint, retryDelays: [0, 100, 1000, 3000], ...options });
  const [file] = document.querySelector("input").files;
  uppy.addFile({ name, type: file.type, data: file, meta });
  window.said = [];
  uppy.getPlugin("Tus").setOptions({
    onAfterResponse: (request, response) => {
      window.said.push({
        method: request.getMethod(),
        from: Number(request.getHeader("Upload-Offset")),
        offset: Number(response.getHeader("Upload-Offset")),
      });
    },
  });
  window.uppy = uppy;
  window.end = uppy.upload().then(({ successful, failed }) => ({
    successful: successful.length,
    errors: failed.map(({ error }) => error),
  }));
};
