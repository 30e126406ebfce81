//! What a publisher sends: FLV tag bodies with a time, in decode order over both tracks.
//!
//! Before this: [`crate::clip`] or [`crate::synthetic`]. After this: [`crate::pace`].

use bytes::{BufMut, Bytes, BytesMut};
use rml_rtmp::rml_amf0::{self, Amf0Value};

/// An elementary stream of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Track {
    Video,
    Audio,
}

/// One access unit on its way to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    pub track: Track,
    /// Decode time in milliseconds since the publish began. On the wire it is sent modulo 2^32.
    pub at_ms: u64,
    /// The FLV tag body (FLV 10.1 annex E.4.2, E.4.3): what an RTMP audio or video message carries.
    pub payload: Bytes,
}

/// What is sent before the first tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    pub metadata: Metadata,
    /// The AVC sequence header as a tag body.
    pub video_header: Option<Bytes>,
    /// The AAC sequence header as a tag body.
    pub audio_header: Option<Bytes>,
}

/// Where tags come from. Endless, or over when [`Source::next_tag`] says `None`.
pub trait Source: Send {
    fn opening(&self) -> Opening;
    /// The next tag in decode order; times never go back.
    fn next_tag(&mut self) -> Option<Tag>;
}

/// The AMF0 values of an `onMetaData` message: its name and its properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata(Bytes);

impl Metadata {
    /// Takes the body of an FLV script tag as it is.
    pub fn from_script_tag(body: Bytes) -> Self {
        Self(body)
    }

    /// `onMetaData` with these properties as an ECMA array, in this order, as encoders send it. Properties that AMF0
    /// cannot express (a name or text above 65535 bytes) are left out.
    pub fn new(properties: &[(&str, Amf0Value)]) -> Self {
        const ECMA_ARRAY: u8 = 0x08;
        const OBJECT_END: &[u8] = &[0, 0, 9];
        let mut array = BytesMut::new();
        let mut count = 0u32;
        for (name, value) in properties {
            let Ok(name_len) = u16::try_from(name.len()) else {
                continue;
            };
            let Ok(encoded) = rml_amf0::serialize(&vec![value.clone()]) else {
                continue;
            };
            array.put_u16(name_len);
            array.put_slice(name.as_bytes());
            array.put_slice(&encoded);
            count += 1;
        }
        let mut body = BytesMut::with_capacity(array.len() + 32);
        put_string(&mut body, "onMetaData");
        body.put_u8(ECMA_ARRAY);
        body.put_u32(count);
        body.put_slice(&array);
        body.put_slice(OBJECT_END);
        Self(body.freeze())
    }

    /// The body of the RTMP data message: `@setDataFrame`, then the metadata.
    pub(crate) fn data_frame(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(self.0.len() + 16);
        put_string(&mut body, "@setDataFrame");
        body.put_slice(&self.0);
        body.freeze()
    }
}

/// Appends an AMF0 string; `text` is a short constant of ours.
fn put_string(out: &mut BytesMut, text: &'static str) {
    const STRING: u8 = 0x02;
    out.put_u8(STRING);
    out.put_u16(text.len() as u16);
    out.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_reads_back_as_the_message_encoders_send() {
        let metadata = Metadata::new(&[
            ("width", Amf0Value::Number(1280.0)),
            ("stereo", Amf0Value::Boolean(true)),
        ]);
        let values = rml_amf0::deserialize(&mut metadata.data_frame().as_ref()).unwrap();
        let [set, name, Amf0Value::Object(properties)] = values.as_slice() else {
            panic!("{values:?}");
        };
        assert_eq!(set, &Amf0Value::Utf8String("@setDataFrame".into()));
        assert_eq!(name, &Amf0Value::Utf8String("onMetaData".into()));
        assert_eq!(properties.get("width"), Some(&Amf0Value::Number(1280.0)));
        assert_eq!(properties.len(), 2);
    }
}
