// One upload in a process that can be killed. Tells from which offset it went on.
// Usage: node tus_js_process.mjs ENDPOINT FILE URLS NAME ENCRYPTION
import { createReadStream } from "node:fs";
import { FileUrlStorage, Upload } from "tus-js-client";

const [endpoint, file, urls, filename, encryption] = process.argv.slice(2);
let from = 0;
const upload = new Upload(createReadStream(file), {
  endpoint,
  metadata: encryption === "true" ? { filename, encryption } : { filename },
  urlStorage: new FileUrlStorage(urls),
  storeFingerprintForResuming: true,
  retryDelays: null,
  onAfterResponse: (request, response) => {
    if (request.getMethod() === "HEAD") from = Number(response.getHeader("Upload-Offset"));
  },
  onSuccess: () => console.log(JSON.stringify({ from })),
  onError: (error) => {
    console.error(error);
    process.exit(1);
  },
});
const [before] = await upload.findPreviousUploads();
if (before) upload.resumeFromPreviousUpload(before);
upload.start();
