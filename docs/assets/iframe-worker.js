// Where a page is opened as a file, browsers start no worker: its script runs in a hidden frame instead, for the search.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      this.ready = new Promise((resolve) => {
        frame.onload = () => {
          const inside = frame.contentWindow;
          const load = (source) =>
            new Promise((loaded, failed) => {
              const script = inside.document.createElement("script");
              Object.assign(script, { src: source, onload: loaded, onerror: failed });
              inside.document.body.append(script);
            });
          inside.postMessage = (data) => this.tell(data);
          inside.importScripts = (...sources) => Promise.all(sources.map(load));
          load(url).then(() => resolve(inside));
        };
      });
      frame.srcdoc = "<!doctype html><title>worker</title>";
      document.body.append(frame);
    }

    tell(data) {
      const event = new MessageEvent("message", { data });
      this.dispatchEvent(event);
      this.onmessage?.(event);
    }

    postMessage(data) {
      this.ready.then((inside) => inside.dispatchEvent(new inside.MessageEvent("message", { data })));
    }

    terminate() {}
  };
}
