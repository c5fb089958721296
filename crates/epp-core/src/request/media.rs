//! What stands in a prompt for an image, a video or a sound: the hash of what names or holds it,
//! repeated as often as it is likely to take tokens.
//!
//! Of a picture inside the body only the header is looked at, for its width and height; the rest
//! is hashed as it streams past.
//!
//! The hash has no key: what stands in the prompt are 32 bits of it, as in the Endpoint Picker, and of so
//! few anyone finds two that are alike by trying, keyed or not, who can see where requests go. Who does
//! makes the filter expect an image in a cache that holds another one, which costs that request its match.

use xxhash_rust::xxh64::Xxh64;

use super::image::ImageHeader;
use super::prompt::Media;
use crate::prefix::digest::TOKEN;

/// Pixels per token.
const PIXELS_PER_TOKEN: u64 = 1024;

/// What an image is taken for whose size cannot be told.
const USUAL_SIZE: (u32, u32) = (640, 360);

/// Frames of a video, whose length cannot be told: ten seconds, two frames each.
const VIDEO_FRAMES: usize = 20;

/// What a data URI of an image begins with.
const DATA_IMAGE: &[u8] = b"data:image/";

/// What ends a data URI's head.
const BASE64: &[u8] = b"base64,";

/// Where in the text of a URL.
#[derive(Debug, Clone, Copy, Default)]
enum Text {
    /// This much of [`DATA_IMAGE`] was read, and nothing else.
    Scheme(usize),
    /// In the head of an image's data URI, which ends with this much of [`BASE64`].
    Head(usize),
    /// In the image.
    Image,
    /// The size is not known.
    #[default]
    Other,
}

/// Sums up one image, video or sound as its text streams past.
#[derive(Clone, Default)]
pub struct MediaSum {
    hash: Xxh64,
    length: usize,
    text: Text,
    image: ImageHeader,
}

impl MediaSum {
    /// Begins the text of a URL.
    pub fn url() -> Self {
        Self {
            text: Text::Scheme(0),
            ..Self::default()
        }
    }

    /// Begins an image's bytes in base64.
    pub fn base64() -> Self {
        Self {
            text: Text::Image,
            ..Self::default()
        }
    }

    /// Whether there was any text.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The hash of the text so far.
    pub fn digest(&self) -> u64 {
        self.hash.digest()
    }

    /// More of the text.
    pub fn update(&mut self, text: &[u8]) {
        self.hash.update(text);
        self.length += text.len();
        let mut rest = text;
        while let Some((&byte, after)) = rest.split_first() {
            self.text = match self.text {
                Text::Other => return,
                Text::Image => {
                    self.image.update(rest);
                    return;
                }
                Text::Scheme(read) if DATA_IMAGE.get(read) != Some(&byte) => Text::Other,
                Text::Scheme(read) if read + 1 == DATA_IMAGE.len() => Text::Head(0),
                Text::Scheme(read) => Text::Scheme(read + 1),
                Text::Head(read) if BASE64.get(read) != Some(&byte) => {
                    Text::Head(usize::from(byte == b'b'))
                }
                Text::Head(read) if read + 1 == BASE64.len() => Text::Image,
                Text::Head(read) => Text::Head(read + 1),
            };
            rest = after;
        }
    }

    /// As an image.
    pub fn as_image(&self) -> Media {
        let (width, height) = self.image.size().unwrap_or(USUAL_SIZE);
        let tokens = u64::from(width) * u64::from(height) / PIXELS_PER_TOKEN;
        self.media(usize::try_from(tokens).unwrap_or(usize::MAX))
    }

    /// As a video.
    pub fn as_video(&self) -> Media {
        let (width, height) = USUAL_SIZE;
        let frame = u64::from(width) * u64::from(height) / PIXELS_PER_TOKEN;
        self.media(VIDEO_FRAMES * usize::try_from(frame).unwrap_or(usize::MAX))
    }

    /// As a sound.
    pub fn as_audio(&self) -> Media {
        self.media(self.length.div_ceil(TOKEN))
    }

    /// Everything takes a token at least. The token is the low half of the hash.
    fn media(&self, count: usize) -> Media {
        Media {
            token: self.hash.digest() as u32,
            count: count.max(1),
        }
    }
}

impl std::fmt::Debug for MediaSum {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { length, text, .. } = self;
        write!(formatter, "MediaSum({length} bytes, {text:?})")
    }
}
