//! The operator's own picture for long gaps: one key frame with a decoder configuration of its own. Pure.
//!
//! It can't be coded with the parameter sets of somebody else's encoder, so it comes behind an EXT-X-DISCONTINUITY with its own
//! EXT-X-MAP, and the broadcast the same way after it. What follows it inside the gap is the held picture, as cheap as any.
//!
//! Before this: `live/slate.rs`, which has it encoded. After this: `resilience/queue.rs`, which shows it.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    codec::{CodecConfig, avc::AvcConfig},
    ingest::ts::{
        TsError,
        video::{Reader, Syntax},
    },
};

/// A picture that fills long gaps.
#[derive(Debug, Clone)]
pub struct Slate {
    pub config: Arc<CodecConfig>,
    /// The picture, as a sample.
    pub key: Bytes,
}

/// Why a stream is no slate.
#[derive(Debug, thiserror::Error)]
pub enum NoSlate {
    #[error(transparent)]
    Damaged(#[from] TsError),
    #[error("no picture that decoding can begin with")]
    NoKeyFrame,
    #[error("{0}x{1} instead of {2}x{3}")]
    OtherSize(u16, u16, u16, u16),
}

impl Slate {
    /// Takes an H.264 stream with start codes that is one key frame, in place of pictures of `beside`.
    pub fn parse(stream: &Bytes, beside: &AvcConfig) -> Result<Self, NoSlate> {
        let unit = Reader::new(Syntax::Avc).read(stream)?;
        let (Some(CodecConfig::Avc(mut avc)), true) = (unit.config, unit.key) else {
            return Err(NoSlate::NoKeyFrame);
        };
        if (avc.width, avc.height) != (beside.width, beside.height) {
            return Err(NoSlate::OtherSize(avc.width, avc.height, beside.width, beside.height));
        }
        // A single picture's own rhythm says nothing: it is shown at the broadcast's.
        avc.frame_duration = beside.frame_duration;
        Ok(Self {
            config: Arc::new(CodecConfig::Avc(avc)),
            key: unit.data,
        })
    }
}
