//! Has the operator's picture encoded to match a broadcast's, one at a time. It runs beside the broadcast, which waits for
//! nothing: without a slate the last picture is held, as ever.
//!
//! Before this: `live/cushion.rs`, which asks when a broadcast begins. After this: `ffmpeg.rs`, `package/slate.rs`.

use std::{collections::BTreeMap, ffi::OsStr, io, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::{
    codec::{CodecConfig, avc::AvcConfig},
    ffmpeg::{Ffmpeg, NoPicture},
    metrics::Metrics,
    package::slate::{NoSlate, Slate},
};

/// Longest time that one encoding may take.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// Largest picture, in bytes.
const BYTES_LIMIT: u64 = 8 << 20;
/// Picture forms whose slate is kept; broadcasts of further ones have none.
const FORMS_MAX: usize = 32;

/// What the operator wants shown.
#[derive(Debug, Clone)]
pub struct Settings {
    pub file: PathBuf,
    /// How long the last picture is held before.
    pub after: Duration,
    /// The program that encodes.
    pub ffmpeg: String,
}

/// What a slate has in common with the broadcast around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Form {
    width: u16,
    height: u16,
    sample_aspect: (u16, u16),
    profile: u8,
    frame_duration: Option<(u32, u32)>,
}

/// Slates of all forms asked for so far.
#[derive(Debug)]
pub struct Slates {
    settings: Settings,
    made: Mutex<BTreeMap<Form, watch::Receiver<Option<Slate>>>>,
    /// One encoding at a time.
    turn: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// Why there is no slate.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    NotMade(#[from] NoPicture),
    #[error("its file has no address: {0}")]
    File(#[from] io::Error),
    #[error("what ffmpeg made is of no use: {0}")]
    Unusable(#[from] NoSlate),
}

impl Slates {
    pub fn new(settings: Settings, metrics: Arc<Metrics>) -> Self {
        Self {
            settings,
            made: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
            metrics,
        }
    }

    /// How long the last picture is held before a slate is shown.
    pub fn after(&self) -> Duration {
        self.settings.after
    }

    /// The slate for a broadcast of this configuration: now, later or never. `None` if its codec has none.
    pub fn ask(&self, config: &CodecConfig) -> Option<watch::Receiver<Option<Slate>>> {
        let CodecConfig::Avc(avc) = config else {
            tracing::warn!(
                codec = config.codec_string(),
                "slates are H.264: this broadcast's last picture is held"
            );
            return None;
        };
        let form = Form {
            width: avc.width,
            height: avc.height,
            sample_aspect: avc.sample_aspect,
            profile: avc.profile[0],
            frame_duration: avc.frame_duration,
        };
        let mut made = self.made.lock();
        if let Some(known) = made.get(&form) {
            return Some(known.clone());
        }
        if made.len() >= FORMS_MAX {
            tracing::warn!(FORMS_MAX, "no slate: too many forms of pictures");
            return None;
        }
        let (maker, slate) = watch::channel(None);
        made.insert(form, slate.clone());
        drop(made);
        let (settings, turn, metrics, beside) = (
            self.settings.clone(),
            self.turn.clone(),
            self.metrics.clone(),
            avc.clone(),
        );
        tokio::spawn(async move {
            let Ok(_turn) = turn.acquire_owned().await else { return };
            let outcome = match make(&settings, &beside).await {
                Ok(slate) => {
                    tracing::info!(bytes = slate.key.len(), ?form, "the slate is ready");
                    maker.send_replace(Some(slate));
                    "made"
                }
                Err(error) => {
                    tracing::warn!(%error, ?form, "no slate: the last picture is held");
                    "failed"
                }
            };
            metrics.slates.with_label_values(&[outcome]).inc();
        });
        Some(slate)
    }
}

/// The picture whole and undistorted in the middle of the broadcast's, as one key frame.
async fn make(settings: &Settings, beside: &AvcConfig) -> Result<Slate, Failed> {
    let (width, height) = (beside.width, beside.height);
    let (across, down) = beside.sample_aspect;
    let filter = format!(
        "scale={width}:{height}:force_original_aspect_ratio=decrease,pad={width}:{height}:(ow-iw)/2:(oh-ih)/2,\
         setsar={across}/{down},format=yuv420p"
    );
    let profile = match beside.profile[0] {
        66 => "baseline",
        77 => "main",
        _ => "high",
    };
    let file = std::path::absolute(&settings.file)?;
    let reads = ["-protocol_whitelist", "file,pipe", "-i"].map(OsStr::new);
    let writes = [
        "-an",
        "-frames:v",
        "1",
        "-vf",
        &filter,
        "-threads",
        "1",
        "-c:v",
        "libx264",
        "-preset",
        "medium",
        "-profile:v",
        profile,
        "-bf",
        "0",
        "-refs",
        "1",
        "-f",
        "h264",
        "pipe:1",
    ];
    let arguments: Vec<&OsStr> = reads
        .into_iter()
        .chain([file.as_os_str()])
        .chain(writes.iter().map(OsStr::new))
        .collect();
    let ffmpeg = Ffmpeg::find(&settings.ffmpeg, TIME_LIMIT).await?;
    let said = ffmpeg.run(&arguments, Bytes::new(), BYTES_LIMIT).await?;
    if said.output.is_empty() {
        return Err(NoPicture::Refused(said.complaint).into());
    }
    Ok(Slate::parse(&Bytes::from(said.output), beside)?)
}
