// The player page: hls.js on /app/<key>/index.m3u8, what it is doing in words and figures, and patience.
//
// One Session plays until it ends or fails for good; the page then says so and, after a growing pause, starts the next.
// window.weir = { hls, video, stats() } is there for tests and for people with a console.
"use strict";

(() => {
  const $ = (id) => document.getElementById(id);
  const video = $("video");
  const stage = $("stage");

  const key = decodeURIComponent(location.pathname.split("/").filter(Boolean).pop() || "");
  // Relative, so that a proxy may put everything below a path of its own. The query carries signed playback's ticket.
  const source = new URL(`../app/${encodeURIComponent(key)}/index.m3u8${location.search}`, location.href).href;

  const HLS_CONFIG = {
    lowLatencyMode: true,
    // No liveSyncDuration: the target is then the server's PART-HOLD-BACK, which knows the part size.
    maxLiveSyncPlaybackRate: 1.1, // catches a second up in ten, without an audible change of pitch
    liveSyncOnStallIncrease: 0.3, // seconds of distance that each stall adds, up to one target duration
    backBufferLength: 30,
    maxBufferLength: 10, // seconds ahead: a live edge has no more
    enableWorker: false, // fMP4 needs no remuxing; a worker would only add a hop to each part
    // Patience between attempts is the page's, where it can be seen.
    manifestLoadPolicy: {
      default: { maxTimeToFirstByteMs: 8000, maxLoadTimeMs: 10000, timeoutRetry: null, errorRetry: null },
    },
  };
  const RETRY_FIRST_S = 1;
  const RETRY_LAST_S = 10;
  const AT_EDGE_S = 1.5; // further than this behind the target is "behind"
  const FIGURES_EVERY_MS = 250;

  const say = (() => {
    const notice = $("notice");
    return {
      /** Covers the picture: nothing is playing. */
      waiting(headline, detail = "", { badge = "waiting", spin = true, retry = false } = {}) {
        notice.className = spin ? "notice" : "notice still";
        $("headline").textContent = headline;
        $("detail").textContent = detail;
        $("retry").hidden = !retry;
        say.badge(badge);
      },
      detail(text) { $("detail").textContent = text; },
      /** A spinner over the picture. */
      buffering() { notice.className = "notice brief"; $("retry").hidden = true; },
      playing() { notice.className = "notice clear"; },
      badge(state, text = state) {
        $("badge").dataset.state = state;
        $("badge").textContent = text;
      },
    };
  })();

  /** One attempt at playing. `over` is told once, when it is over: "ended", "absent", "refused", "lost" or "unplayable". */
  class Session {
    hls = null;
    #over;
    #mediaErrors = 0;

    constructor(over) {
      this.#over = over;
    }

    start() {
      if (window.Hls && Hls.isSupported()) return this.#startHls();
      // Only where there is no MediaSource at all (older iPhones): elsewhere native playback is seconds later.
      if (video.canPlayType("application/vnd.apple.mpegurl")) return this.#startNative();
      this.#end("unplayable", "This browser has no Media Source Extensions.");
    }

    #startHls() {
      const hls = (this.hls = new Hls(HLS_CONFIG));
      hls.on(Hls.Events.MANIFEST_PARSED, () => play());
      hls.on(Hls.Events.LEVEL_LOADED, (_, { details }) => {
        // A broadcast that was over before we came: somebody may begin another one.
        if (!details.live && !hasPlayed) this.#end("ended");
      });
      hls.on(Hls.Events.ERROR, (_, error) => this.#onError(error));
      hls.loadSource(source);
      hls.attachMedia(video);
    }

    #startNative() {
      video.src = source;
      video.onerror = () => this.#end("lost");
      play();
    }

    #onError(error) {
      if (!error.fatal) return;
      const status = error.response?.code ?? 0;
      if (error.type === Hls.ErrorTypes.MEDIA_ERROR && this.#mediaErrors++ < 2) {
        this.hls.recoverMediaError();
      } else if (status === 401 || status === 403) {
        this.#end("refused", `The server answered ${status}.`);
      } else if (status === 404 || status === 410) {
        this.#end("absent");
      } else {
        this.#end("lost", status ? `The server answered ${status}.` : error.details);
      }
    }

    ended() {
      this.#end("ended");
    }

    stop() {
      this.#over = null;
      video.onerror = null;
      this.hls?.destroy();
      this.hls = null;
    }

    #end(why, detail) {
      const over = this.#over;
      this.#over = null;
      over?.(why, detail);
    }
  }

  const WORDS = {
    absent: ["The broadcast has not begun yet", "waiting"],
    ended: ["The broadcast has ended", "ended"],
    refused: ["You may not watch this broadcast", "refused"],
    lost: ["The connection was lost", "error"],
    unplayable: ["This browser cannot play the broadcast", "error"],
  };

  let session = null;
  let attempts = 0; // without a picture
  let countdown = 0;
  let hasPlayed = false; // in this session
  let stalls = 0;
  let glass = null;

  function begin() {
    clearInterval(countdown);
    session?.stop();
    hasPlayed = false;
    session = new Session(finished);
    if (attempts === 0) say.waiting("Connecting…", "", { badge: "connecting" });
    session.start();
  }

  function finished(why, detail = "") {
    session?.stop();
    glass = null;
    const [headline, badge] = WORDS[why];
    const again = why !== "unplayable";
    say.waiting(headline, detail, { badge, spin: again && why !== "refused", retry: again });
    if (again) tryAgain(detail, why === "refused" || why === "ended" ? RETRY_LAST_S : 0);
  }

  /** Counts down to the next attempt; the pause doubles up to RETRY_LAST_S, and is never the same for two viewers. */
  function tryAgain(detail, atLeast) {
    const pause = Math.max(atLeast, Math.min(RETRY_LAST_S, RETRY_FIRST_S * 2 ** Math.min(attempts, 6)));
    attempts += 1;
    const due = performance.now() + pause * 1000 * (0.8 + 0.4 * Math.random());
    const show = () => {
      const left = Math.ceil((due - performance.now()) / 1000);
      if (left <= 0) return begin();
      say.detail(`${detail} Trying again in ${left} s.`.trim());
    };
    clearInterval(countdown);
    countdown = setInterval(show, 250);
    show();
  }

  // --- the picture -----------------------------------------------------------------------------------------------

  async function play() {
    try {
      await video.play();
    } catch (error) {
      if (error.name !== "NotAllowedError") return; // AbortError: a newer attempt took over
      if (!video.muted) {
        video.muted = true;
        return play();
      }
      say.waiting("Press play", "", { badge: "paused", spin: false });
      stage.addEventListener("click", () => play(), { once: true });
    }
  }

  video.addEventListener("playing", () => {
    hasPlayed = true;
    attempts = 0;
    say.playing();
  });
  video.addEventListener("waiting", () => {
    if (!hasPlayed || video.seeking || video.paused) return;
    stalls += 1;
    say.buffering();
  });
  video.addEventListener("ended", () => session?.ended());
  video.addEventListener("seeked", () => { if (!video.paused) say.playing(); });

  // --- the clock in the picture ------------------------------------------------------------------------------------

  const clock = new PictureClock();
  let misses = 0;

  function readClock(_now, frame) {
    // The frame that was just handed over is on the screen at expectedDisplayTime.
    const shownAt = Date.now() + (frame.expectedDisplayTime - performance.now());
    const ms = clock.read(video);
    misses = ms === null ? misses + 1 : 0;
    if (ms !== null) glass = PictureClock.age(ms, shownAt);
    else if (misses > 3) glass = null;
    // Pictures without a clock are looked at ever more rarely.
    setTimeout(nextClock, misses > 10 ? 5000 : 200);
  }
  function nextClock() { video.requestVideoFrameCallback?.(readClock); }
  nextClock();

  // --- figures ---------------------------------------------------------------------------------------------------

  function bufferedAhead() {
    const { buffered, currentTime } = video;
    for (let i = 0; i < buffered.length; i++) {
      if (buffered.start(i) <= currentTime + 0.05 && currentTime <= buffered.end(i)) return buffered.end(i) - currentTime;
    }
    return 0;
  }

  function stats() {
    const hls = session?.hls ?? null;
    const level = hls?.levels?.[hls.currentLevel >= 0 ? hls.currentLevel : 0];
    const details = hls?.latestLevelDetails ?? null;
    const playingDate = hls?.playingDate ?? null;
    const quality = video.getVideoPlaybackQuality?.();
    return {
      key,
      state: $("badge").dataset.state,
      playing: hasPlayed && !video.paused && !video.ended && video.readyState > 2,
      currentTime: video.currentTime,
      latency: hls && hasPlayed ? hls.latency : null, // seconds behind the live edge, as hls.js sees it
      targetLatency: hls?.targetLatency ?? null,
      pictureLatency: glass, // seconds, glass to glass; null without a clock in the picture
      sinceIngest: playingDate ? (Date.now() - playingDate.getTime()) / 1000 : null, // by PROGRAM-DATE-TIME
      stalls,
      buffered: bufferedAhead(),
      bitrate: level?.bitrate ?? null,
      width: video.videoWidth,
      height: video.videoHeight,
      frameRate: level?.frameRate ?? null,
      partTarget: details?.partTarget ?? null,
      playbackRate: video.playbackRate,
      droppedFrames: quality?.droppedVideoFrames ?? null,
      totalFrames: quality?.totalVideoFrames ?? null,
    };
  }

  const seconds = (value, digits = 2) => (value === null || !isFinite(value) ? "–" : `${value.toFixed(digits)} s`);

  function show() {
    const now = stats();
    $("glassBox").hidden = now.pictureLatency === null;
    $("glass").textContent = seconds(now.pictureLatency);
    $("latency").textContent = seconds(now.latency);
    const target = now.targetLatency ? `, target ${seconds(now.targetLatency, 1)}` : "";
    $("latencyNote").textContent = `behind the live edge${target}`;
    $("barLatency").textContent = now.latency === null ? "" : seconds(now.pictureLatency ?? now.latency, 1);
    $("stalls").textContent = now.stalls;
    $("buffer").textContent = seconds(now.buffered, 1);
    $("bitrate").textContent = now.bitrate ? `${(now.bitrate / 1e6).toFixed(1)} Mbit/s` : "–";
    $("size").textContent = now.width ? `${now.width}×${now.height}` : "–";
    $("sizeNote").textContent = now.frameRate ? `picture, ${Math.round(now.frameRate)} fps` : "picture";
    $("part").textContent = now.partTarget ? `${Math.round(now.partTarget * 1000)} ms` : "–";
    $("rate").textContent = now.playing ? `×${now.playbackRate.toFixed(2)}` : "–";
    $("dropped").textContent = now.droppedFrames ?? "–";

    const behind = now.latency !== null && now.targetLatency !== null && now.latency - now.targetLatency > AT_EDGE_S;
    $("live").hidden = !session?.hls;
    $("live").dataset.atEdge = String(now.playing && !behind);
    $("live").lastChild.textContent = now.playing && !behind ? "Live" : "Go live";
    if (hasPlayed && $("notice").classList.contains("clear")) {
      if (video.paused) say.badge("paused");
      else say.badge(behind ? "behind" : "live");
    }
  }
  setInterval(show, FIGURES_EVERY_MS);

  // --- the controls ----------------------------------------------------------------------------------------------

  function goLive() {
    const edge = session?.hls?.liveSyncPosition;
    if (edge) video.currentTime = edge;
    play();
  }
  function togglePlay() {
    if (video.paused) play();
    else video.pause();
  }
  function setMuted(muted) {
    video.muted = muted;
    if (!muted && video.volume === 0) video.volume = 1;
  }
  function reflect() {
    stage.classList.toggle("playing", !video.paused);
    stage.classList.toggle("paused", video.paused);
    stage.classList.toggle("muted", video.muted);
    stage.classList.toggle("loud", !video.muted);
    $("play").ariaLabel = video.paused ? "Play" : "Pause";
    $("mute").ariaLabel = video.muted ? "Unmute" : "Mute";
    $("volume").value = video.muted ? 0 : video.volume;
    $("unmute").hidden = !(video.muted && hasPlayed);
  }
  for (const event of ["play", "pause", "playing", "volumechange"]) video.addEventListener(event, reflect);

  $("play").onclick = togglePlay;
  $("mute").onclick = () => setMuted(!video.muted);
  $("unmute").onclick = () => setMuted(false);
  $("volume").oninput = ({ target }) => {
    video.volume = Number(target.value);
    setMuted(video.volume === 0);
  };
  $("live").onclick = goLive;
  $("retry").onclick = begin;
  $("full").onclick = () => {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (stage.requestFullscreen) stage.requestFullscreen();
    else video.webkitEnterFullscreen?.(); // iPhone: only the video itself
  };
  document.addEventListener("keydown", ({ key: pressed, target }) => {
    if (target.closest("button, input")) return;
    const act = { " ": togglePlay, k: togglePlay, m: () => setMuted(!video.muted), l: goLive, f: () => $("full").click() }[pressed];
    act?.();
  });

  let idle = 0;
  function awake() {
    stage.classList.remove("idle");
    clearTimeout(idle);
    idle = setTimeout(() => stage.classList.toggle("idle", !video.paused), 2500);
  }
  for (const event of ["pointermove", "pointerdown", "focusin"]) stage.addEventListener(event, awake);
  awake();

  // --- off we go ---------------------------------------------------------------------------------------------------

  $("key").textContent = key;
  document.title = key ? `${key} · weir` : "weir";
  if (window.self !== window.top) document.body.classList.add("framed");
  window.weir = {
    video,
    stats,
    goLive,
    get hls() { return session?.hls ?? null; },
  };
  reflect();
  begin();
})();
