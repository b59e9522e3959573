// Server-sent events out of the body of any response: EventSource cannot POST.

/** Yields { event, data } for each event that came whole. */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  const lines = new Lines();
  let event = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      for (const line of lines.add(value)) {
        if (line === "") {
          if (data.length) yield { event: event || "message", data: data.join("\n") };
          event = "";
          data = [];
        } else if (line.startsWith("data:")) data.push(valueOf(line, 5));
        else if (line.startsWith("event:")) event = valueOf(line, 6);
        // comments (heartbeats) and other fields say nothing to this page
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // already broken: whoever reads has been told
  }
}

function valueOf(line, from) {
  return line.slice(line[from] === " " ? from + 1 : from);
}

class Lines {
  #rest = "";

  /** The lines that are complete now. They end in LF, CR or CRLF; a CR at the very end may be half of a CRLF. */
  add(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    return lines;
  }
}
