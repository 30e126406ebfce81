//! HEVC, AV1, Opus and several audio tracks, pushed by Enhanced RTMP, as a viewer behind an edge finds them.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::StatusCode;
use mp4_atom::{Mdat, Moof, ReadFrom as _};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weir_loadtest::{
    publisher::{self, Report},
    rhythm::Rhythm,
    rtmp::{PublishError, Session},
    tag::{Metadata, Opening, Source, Tag, Track as Kind},
};
use weir_shared::hls::{multivariant, playlist::MediaPlaylist};
use weir_tests::site::Site;

/// A track as its encoder has it.
#[derive(Clone, Copy)]
struct Track {
    kind: Kind,
    number: u8,
    codec: &'static [u8; 4],
    record: &'static [u8],
    /// What a frame begins with, for a key frame and for another.
    heads: [&'static [u8]; 2],
    /// Frames behind a length of four bytes and a composition time.
    is_nal: bool,
    /// Frames per 1000 seconds.
    milli_rate: u64,
}

const HEVC: Track = Track {
    kind: Kind::Video,
    number: 0,
    codec: b"hvc1",
    record: include_bytes!("../../origin/tests/records/hevc"),
    heads: [&[0x28, 1], &[0x02, 1]],
    is_nal: true,
    milli_rate: 30_000,
};
const AVC: Track = Track {
    codec: b"avc1",
    record: include_bytes!("../../origin/tests/records/avc"),
    heads: [&[0x65], &[0x41]],
    ..HEVC
};
const AV1: Track = Track {
    codec: b"av01",
    record: include_bytes!("../../origin/tests/records/av1"),
    heads: [&[0x12, 0, 0x30, 0x10], &[0x12, 0, 0x30, 0x30]],
    is_nal: false,
    ..HEVC
};
const AAC: Track = Track {
    kind: Kind::Audio,
    number: 0,
    codec: b"mp4a",
    record: &[0x11, 0x90],
    heads: [&[0x21], &[0x21]],
    is_nal: false,
    milli_rate: 46_875,
};
const OPUS: Track = Track {
    codec: b"Opus",
    record: include_bytes!("../../origin/tests/records/opus"),
    heads: [&[0xfc], &[0xfc]],
    milli_rate: 50_000,
    ..AAC
};

impl Track {
    const fn numbered(self, number: u8) -> Self {
        Self { number, ..self }
    }

    /// `video`, `audio`, `audio-2`.
    fn rendition(&self) -> String {
        match (self.kind, self.number) {
            (Kind::Video, _) => "video".to_owned(),
            (Kind::Audio, 0) => "audio".to_owned(),
            (Kind::Audio, number) => format!("audio-{}", number + 1),
        }
    }

    fn at_ms(&self, n: u64) -> u64 {
        (n * 1_000_000 + self.milli_rate / 2) / self.milli_rate
    }

    /// Frame `n`: no two are alike.
    fn frame(&self, n: u64) -> Vec<u8> {
        let head = self.heads[usize::from(!n.is_multiple_of(30))];
        let name = format!("{} {n} ", self.rendition());
        let payload = name.repeat(3 + (n as usize * 7) % 40).into_bytes();
        let mut frame = Vec::new();
        if self.is_nal {
            frame.extend(((head.len() + payload.len()) as u32).to_be_bytes());
        }
        frame.extend_from_slice(head);
        frame.extend(payload);
        frame
    }

    /// A message of this track alone: plain for the first of its kind, multitrack for others.
    fn message(&self, packet_type: u8, body: &[u8]) -> Bytes {
        let multitrack = if self.kind == Kind::Video { 6 } else { 5 };
        let head = match self.number {
            0 => [&[0x90 | packet_type], &self.codec[..]].concat(),
            number => [&[0x90 | multitrack, packet_type], &self.codec[..], &[number]].concat(),
        };
        [&head[..], body].concat().into()
    }
}

/// Sends its tracks for as long as anybody listens.
struct Enhanced {
    tracks: Vec<Track>,
    /// Sequence starts sent, then frames of each track.
    started: usize,
    next: Vec<u64>,
}

impl Enhanced {
    fn new(tracks: &[Track]) -> Self {
        Self {
            tracks: tracks.to_vec(),
            started: 0,
            next: vec![0; tracks.len()],
        }
    }
}

impl Source for Enhanced {
    fn opening(&self) -> Opening {
        Opening {
            metadata: Metadata::new(&[]),
            video_header: None,
            audio_header: None,
        }
    }

    fn next_tag(&mut self) -> Option<Tag> {
        if let Some(track) = self.tracks.get(self.started) {
            self.started += 1;
            return Some(Tag {
                track: track.kind,
                at_ms: 0,
                payload: track.message(0, track.record),
            });
        }
        let due = |at: &usize| (self.tracks[*at].at_ms(self.next[*at]), *at);
        let at = (0..self.tracks.len()).min_by_key(due)?;
        let (track, n) = (self.tracks[at], self.next[at]);
        self.next[at] += 1;
        // Every other frame tells its composition time, which is zero.
        let payload = match track.is_nal {
            true if n.is_multiple_of(2) => track.message(1, &[&[0; 3], &track.frame(n)[..]].concat()),
            true => track.message(3, &track.frame(n)),
            false => track.message(1, &track.frame(n)),
        };
        Some(Tag {
            track: track.kind,
            at_ms: track.at_ms(n),
            payload,
        })
    }
}

/// A push that goes on until it is stopped.
struct Push {
    stop: CancellationToken,
    task: JoinHandle<Result<Report, PublishError>>,
}

impl Push {
    async fn start(site: &Site, key: &str, tracks: &[Track]) -> anyhow::Result<Self> {
        let session = Session::connect(&format!("rtmp://{}/app", site.origin.rtmp), key).await?;
        let (source, stop) = (Enhanced::new(tracks), CancellationToken::new());
        let told = stop.clone();
        let task =
            tokio::spawn(
                async move { publisher::push(session, source, Instant::now(), Rhythm::default(), &told).await },
            );
        Ok(Self { stop, task })
    }

    async fn end(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.task.await??;
        Ok(())
    }
}

async fn multivariant(site: &Site, key: &str) -> anyhow::Result<multivariant::Multivariant> {
    let reply = site.get(&format!("/app/{key}/d/llhls.m3u8")).await?;
    anyhow::ensure!(reply.status == StatusCode::OK, "{}: {}", reply.status, reply.text());
    Ok(multivariant::parse(reply.text())?)
}

/// The playlist once the segment that is open now is complete.
async fn with_whole_segments(site: &Site, key: &str, rendition: &str) -> anyhow::Result<MediaPlaylist> {
    let open = site.playlist(key, rendition).await?.open_sequence();
    site.get(&format!("/app/{key}/d/{rendition}.m3u8?_HLS_msn={open}"))
        .await?
        .playlist()
}

/// Init section, whole segments, and the samples in these.
async fn media(site: &Site, key: &str, playlist: &MediaPlaylist) -> anyhow::Result<(Vec<u8>, Vec<Bytes>)> {
    let map = playlist
        .segments
        .iter()
        .find_map(|s| s.map_uri.as_ref())
        .expect("an init section");
    let mut file = site.get(&format!("/app/{key}/d/{}", map)).await?.body.to_vec();
    let mut samples = Vec::new();
    for uri in playlist.segments.iter().filter_map(|s| s.uri.as_ref()) {
        let segment = site.get(&format!("/app/{key}/d/{uri}")).await?.body;
        file.extend_from_slice(&segment);
        let mut reader = &segment[..];
        while !reader.is_empty() {
            let moof = Moof::read_from(&mut reader)?;
            let mut data = Bytes::from(Mdat::read_from(&mut reader)?.data);
            for entry in moof.traf[0].trun[0].samples.iter() {
                samples.push(data.split_to(entry.size.expect("samples have sizes") as usize));
            }
        }
    }
    Ok((file, samples))
}

/// What ffprobe says of a file, if it is installed: codec, width and height or channels.
fn probed(file: &[u8]) -> Option<String> {
    let mut ffprobe = Command::new("ffprobe")
        .args(["-v", "quiet", "-of", "csv=p=0"])
        .args([
            "-show_entries",
            "stream=codec_name,codec_tag_string,width,height,channels,sample_rate",
            "-",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .inspect_err(|error| eprintln!("SKIPPED: what ffprobe says was not asked: {error}"))
        .ok()?;
    let mut input = ffprobe.stdin.take()?;
    // It may know enough before it has read all.
    let _ = input.write_all(file);
    drop(input);
    let output = ffprobe.wait_with_output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn new_codecs_are_named_and_come_through_bit_by_bit() -> anyhow::Result<()> {
    let site = Site::start().await?;
    for (key, tracks, codecs, probes) in [
        (
            "hevc-opus",
            [HEVC, OPUS],
            "hvc1.1.6.L63.90,opus",
            ["hevc,hvc1,640,360", "opus,Opus,48000,1"],
        ),
        (
            "av1-aac",
            [AV1, AAC],
            "av01.0.01M.08,mp4a.40.2",
            ["av1,av01,640,360", "aac,mp4a,48000,2"],
        ),
    ] {
        let push = Push::start(&site, key, &tracks).await?;
        let multivariant = multivariant(&site, key).await?;
        assert_eq!(multivariant.variants.len(), 1, "{key}");
        assert_eq!(multivariant.variants[0].codecs.as_deref(), Some(codecs));
        assert_eq!(multivariant.variants[0].resolution, Some((640, 360)));
        for (track, probe) in tracks.iter().zip(probes) {
            let playlist = with_whole_segments(&site, key, &track.rendition()).await?;
            let (file, samples) = media(&site, key, &playlist).await?;
            assert!(samples.len() >= 28, "{key}: {} samples", samples.len());
            for (n, sample) in samples.iter().enumerate() {
                assert_eq!(
                    *sample,
                    track.frame(n as u64),
                    "{key}, {}, frame {n}",
                    track.rendition()
                );
            }
            if let Some(said) = probed(&file) {
                assert_eq!(said, probe, "{key}");
            }
        }
        push.end().await?;
    }
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_audio_track_is_a_rendition_in_step_with_the_picture() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let tracks = [AVC, AAC, AAC.numbered(1), OPUS.numbered(4)];
    let push = Push::start(&site, "show", &tracks).await?;
    let multivariant = multivariant(&site, "show").await?;
    let variants: Vec<_> = multivariant
        .variants
        .iter()
        .map(|v| v.codecs.as_deref().unwrap_or(""))
        .collect();
    assert_eq!(variants, ["avc1.64001f,mp4a.40.2,opus"]);
    let media: Vec<_> = multivariant
        .media
        .iter()
        .map(|m| (m.name.as_str(), m.uri.as_deref().unwrap_or(""), m.default))
        .collect();
    let expected = [
        ("Audio 1", "audio.m3u8", true),
        ("Audio 2", "audio-2.m3u8", false),
        ("Audio 5", "audio-5.m3u8", false),
    ];
    assert_eq!(media, expected);
    let video = with_whole_segments(&site, "show", "video").await?;
    let first = |playlist: &MediaPlaylist| playlist.segments[0].program_date_time;
    for track in &tracks[1..] {
        let rendition = track.rendition();
        let audio = with_whole_segments(&site, "show", &rendition).await?;
        assert_eq!(audio.media_sequence, video.media_sequence, "{rendition}");
        let (picture, sound) = (first(&video), first(&audio));
        let (Some(picture), Some(sound)) = (picture, sound) else {
            panic!("{rendition} does not tell its time");
        };
        let apart = sound.duration_since(picture).unwrap_or_else(|early| early.duration());
        assert!(apart <= Duration::from_millis(25), "{rendition} begins {apart:?} apart");
        let others: Vec<_> = audio
            .rendition_reports
            .iter()
            .map(|report| report.uri.as_str())
            .collect();
        assert_eq!(others.len(), 3, "{rendition} reports {others:?}");
        assert!(!others.contains(&format!("{rendition}.m3u8").as_str()));
    }
    push.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn audio_tracks_without_a_picture_stay_in_step() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let push = Push::start(&site, "radio", &[OPUS, OPUS.numbered(1)]).await?;
    let multivariant = multivariant(&site, "radio").await?;
    assert_eq!(multivariant.variants.len(), 1);
    assert_eq!(multivariant.variants[0].uri, "audio.m3u8");
    assert_eq!(multivariant.media.len(), 2);
    let one = with_whole_segments(&site, "radio", "audio").await?;
    let two = with_whole_segments(&site, "radio", "audio-2").await?;
    assert_eq!(one.media_sequence, two.media_sequence);
    let length = |playlist: &MediaPlaylist| playlist.segments[0].duration;
    assert!(length(&one).abs_diff(length(&two)) <= Duration::from_millis(20));
    push.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_packaged_is_refused_by_name() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let vp9 = Track { codec: b"vp09", ..AV1 };
    let too_many: Vec<Track> = (0..9).map(|number| AAC.numbered(number)).collect();
    for (key, tracks, said) in [
        ("vp9", &[vp9][..], "vp09"),
        ("choir", &too_many, "more than 8 audio tracks"),
    ] {
        let push = Push::start(&site, key, tracks).await?;
        match push.task.await? {
            Err(PublishError::Refused(status)) => {
                assert_eq!(status.code, "NetStream.Publish.Rejected");
                assert!(status.description.contains(said), "{status}");
            }
            other => panic!("{key}: {other:?}"),
        }
    }
    site.shutdown().await;
    Ok(())
}
