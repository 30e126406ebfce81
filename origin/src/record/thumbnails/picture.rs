//! One picture out of a key frame.
//!
//! Before this: `thumbnails.rs`. After this: `ffmpeg.rs`.

use bytes::Bytes;

use crate::ffmpeg::{Ffmpeg, NoPicture};

/// Largest picture, in bytes.
const PICTURE_LIMIT: u64 = 1 << 20;
/// JPEG's scale of ffmpeg: 2 is best, 31 worst.
const QUALITY: &str = "5";
/// What every JPEG file begins and ends with.
const JPEG: (&[u8], &[u8]) = (&[0xff, 0xd8], &[0xff, 0xd9]);

/// The first picture of `media` (init section and fragment) as JPEG, no side of it longer than `size` pixels.
pub async fn picture(ffmpeg: &Ffmpeg, media: Bytes, size: u32) -> Result<Bytes, NoPicture> {
    let scale =
        format!("scale=w={size}:h={size}:force_original_aspect_ratio=decrease:force_divisible_by=2,format=yuvj420p");
    let arguments = [
        "-protocol_whitelist",
        "pipe",
        "-threads",
        "1",
        "-f",
        "mov",
        "-i",
        "pipe:0",
        "-an",
        "-frames:v",
        "1",
        "-vf",
        &scale,
        "-threads",
        "1",
        "-c:v",
        "mjpeg",
        "-q:v",
        QUALITY,
        "-f",
        "image2pipe",
        "pipe:1",
    ];
    let said = ffmpeg.run(&arguments, media, PICTURE_LIMIT).await?;
    let (begins, ends) = JPEG;
    match said.output.starts_with(begins) && said.output.ends_with(ends) {
        true => Ok(said.output.into()),
        false => Err(NoPicture::Refused(said.complaint)),
    }
}
