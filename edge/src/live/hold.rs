//! How a viewer's request waits for a live rendition.
//!
//! Before this: `handle.rs`, with a parsed request. After this: the view that satisfies it. The decision is pure; the wait
//! is `weir_shared::hold`.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use weir_shared::{
    hls::position::{Verdict, Want, answer},
    hold::{self, Held},
    id::{RenditionName, StreamKey},
};

use super::{
    Moment,
    follower::State,
    followers::Followers,
    roster::{NotFollowed, Watched},
    view::View,
};
use crate::{
    admit::Asker,
    cache::{Absent, Entry, Kind, Store},
    refusal::Refusal,
    upstream::Resource,
};

/// Longest wait of a request, in target durations (section 6.2.5.2). Later: 503.
pub const HOLD_TARGET_DURATIONS: u32 = 3;
/// Wait, in target durations, of who comes while the upstream has been gone for longer than that. Players that are told at
/// once ask again at once, several times a second; like this they ask now and then, and hear of its return first.
const GONE_TARGET_DURATIONS: u32 = 1;
/// Longest wait while not even the target duration is known.
const FIRST_HOLD: Duration = Duration::from_secs(6);

/// Waits until the rendition's playlist satisfies `want`.
pub async fn playlist(
    followers: &Arc<Followers>,
    key: &StreamKey,
    name: &RenditionName,
    want: Want,
    asker: Asker<'_>,
) -> Result<Arc<View>, Refusal> {
    until(|| followers.watch(key, name, asker), want).await
}

/// Waits until a followed playlist satisfies `want`. `watch` finds its follower, or starts one.
pub async fn until<M: Moment>(
    watch: impl Fn() -> Result<Watched<M>, NotFollowed>,
    want: Want,
) -> Result<Arc<M>, Refusal> {
    let asked_at = Instant::now();
    let mut deadline = asked_at + FIRST_HOLD;
    // A follower that was just ending is replaced once.
    for _ in 0..2 {
        let mut state = watch().map_err(|why| match why {
            NotFollowed::TooMany => Refusal::Busy,
            NotFollowed::Ending => Refusal::Ending,
            NotFollowed::Limited(reached) => reached.into(),
        })?;
        if state.borrow().view.is_none() {
            // Until the first view, then anew: only a view says how long a request may be held.
            match hold::hold(&mut state, deadline, |s| {
                (s.view.is_some() || s.absent.is_some()).then_some(())
            })
            .await
            {
                Held::Ready(()) => {}
                Held::TimedOut => return Err(Refusal::OriginUnreachable),
                Held::Gone => continue,
            }
        }
        if let Some(longest) = longest(&state.borrow(), asked_at) {
            deadline = asked_at + longest;
        }
        match hold::hold(&mut state, deadline, |s| decide(s, want, Instant::now())).await {
            Held::Ready(decided) => return decided,
            Held::TimedOut => return Err(in_vain(&state.borrow())),
            Held::Gone => {}
        }
    }
    Err(Refusal::OriginUnreachable)
}

/// How long a request may be held that comes now. `None`: not even the target duration is known.
fn longest<M: Moment>(state: &State<M>, now: Instant) -> Option<Duration> {
    let target_duration = state.view.as_ref()?.target_duration();
    let target_durations = match is_gone(state, now) {
        true => GONE_TARGET_DURATIONS,
        false => HOLD_TARGET_DURATIONS,
    };
    Some(target_duration * target_durations)
}

/// Whether the last playlist is no longer true: a live playlist may not stand still for so long.
fn is_gone<M: Moment>(state: &State<M>, now: Instant) -> bool {
    let down_for = state.down_since.map(|since| now.saturating_duration_since(since));
    let view = state.view.as_ref();
    view.zip(down_for)
        .is_some_and(|(view, down)| down >= view.target_duration() * HOLD_TARGET_DURATIONS)
}

/// What whoever has waited in vain is told.
fn in_vain<M>(state: &State<M>) -> Refusal {
    match state.down_since {
        Some(_) => Refusal::OriginUnreachable,
        None => Refusal::HeldTooLong,
    }
}

/// What has become of a part that was hinted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Coming,
    Listed,
    /// Its playlist went another way.
    Never,
}

/// Waits for a part that is hinted. An origin that dies meanwhile is not the viewer's affair: whoever follows the playlist
/// finds it again, or another one, and then the part is there or never will be.
pub async fn part<M: Moment>(
    mut watched: Watched<M>,
    store: &Arc<Store>,
    part: &Resource,
    fate: impl Fn(&M) -> Fate,
) -> Result<Arc<Entry>, Refusal> {
    let now = Instant::now();
    let deadline = now + longest(&watched.borrow(), now).unwrap_or(FIRST_HOLD);
    match timeout_at(deadline, store.get_resource(part, Kind::Listed)).await {
        Ok(Ok(entry)) => return Ok(entry),
        Ok(Err(absent @ (Absent::Ending | Absent::Shed | Absent::Limited(_)))) => return Err(absent.into()),
        Ok(Err(Absent::Refused { .. } | Absent::Upstream(_))) => {}
        Err(_) => return Err(in_vain(&watched.borrow())),
    }
    let decided = |state: &State<M>| match state.view.as_deref().map(&fate) {
        Some(Fate::Coming) => None,
        Some(decided) => Some(decided),
        None => Some(Fate::Never),
    };
    match hold::hold(&mut watched, deadline, decided).await {
        Held::Ready(Fate::Never | Fate::Coming) => Err(Refusal::NoSuchObject),
        Held::Ready(Fate::Listed) => {
            // Rare, so boxed: thousands that wait would keep room for it.
            let fetched = Box::pin(timeout_at(deadline, store.get_resource(part, Kind::Listed))).await;
            Ok(fetched.map_err(|_| Refusal::HeldTooLong)??)
        }
        Held::TimedOut => Err(in_vain(&watched.borrow())),
        Held::Gone => Err(Refusal::OriginUnreachable),
    }
}

/// Answer, refuse or (`None`) wait.
fn decide<M: Moment>(state: &State<M>, want: Want, now: Instant) -> Option<Result<Arc<M>, Refusal>> {
    if let Some((status, reason)) = &state.absent {
        return Some(Err(Refusal::Origin {
            status: *status,
            reason: reason.clone(),
        }));
    }
    let view = state.view.as_ref()?;
    // The last playlist is served while it is true.
    if is_gone(state, now) {
        return None;
    }
    match answer(view.edge(), want) {
        Verdict::Answer => Some(Ok(view.clone())),
        // What is too far ahead of an origin that is away may be right when it is back.
        Verdict::TooFarAhead if state.down_since.is_some() => None,
        Verdict::TooFarAhead => Some(Err(Refusal::TooFarAhead)),
        Verdict::Wait => None,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use weir_shared::hls::{
        parse::parse,
        position::{MediaSequence, PartIndex},
    };

    use super::*;
    use crate::live::view::PartBytes;

    /// Segment 7 is complete, of 8 there are two parts; target duration 2 s.
    fn live() -> State<View> {
        let text = "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:2\n\
            #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.5\n#EXT-X-PART-INF:PART-TARGET=0.5\n\
            #EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-MAP:URI=\"a/video/init0.mp4\"\n#EXTINF:2.0,\na/video/7.m4s\n\
            #EXT-X-PART:DURATION=0.5,URI=\"a/video/p4.m4s\"\n#EXT-X-PART:DURATION=0.5,URI=\"a/video/p5.m4s\"\n\
            #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"a/video/p6.m4s\"\n";
        let view = View::new(parse(text).unwrap(), Instant::now(), PartBytes::default());
        State {
            view: Some(Arc::new(view)),
            ..State::default()
        }
    }

    fn verdict_after(seconds: u64, state: &State<View>, want: Want) -> Option<Result<(), Refusal>> {
        let now = state.down_since.unwrap_or_else(Instant::now) + Duration::from_secs(seconds);
        decide(state, want, now).map(|decided| decided.map(|_| ()))
    }

    fn verdict(state: &State<View>, want: Want) -> Option<Result<(), Refusal>> {
        verdict_after(0, state, want)
    }

    const LISTED: Want = Want::Part(MediaSequence(8), PartIndex(1));
    const NEXT: Want = Want::Part(MediaSequence(8), PartIndex(2));
    const FAR: Want = Want::Segment(MediaSequence(99));

    #[tokio::test]
    async fn what_is_listed_is_answered_and_what_comes_next_waits() {
        let state = live();
        assert_eq!(verdict(&state, Want::Now), Some(Ok(())));
        assert_eq!(verdict(&state, LISTED), Some(Ok(())));
        assert_eq!(verdict(&state, NEXT), None);
        assert_eq!(verdict(&state, FAR), Some(Err(Refusal::TooFarAhead)));
        assert_eq!(verdict(&State::<View>::default(), Want::Now), None, "nothing known yet");
    }

    #[tokio::test]
    async fn the_last_playlist_is_served_while_it_may_be_true() {
        let mut state = live();
        state.down_since = Some(Instant::now());
        assert_eq!(verdict_after(5, &state, Want::Now), Some(Ok(())));
        assert_eq!(
            verdict_after(5, &state, FAR),
            None,
            "the origin may come back further ahead"
        );
        for want in [Want::Now, LISTED, NEXT, FAR] {
            assert_eq!(verdict_after(6, &state, want), None, "it may be back any moment");
        }
    }

    #[tokio::test]
    async fn who_comes_while_the_origin_is_gone_waits_less_long() {
        let mut state = live();
        let now = Instant::now();
        assert_eq!(longest(&state, now), Some(Duration::from_secs(6)));
        assert_eq!(in_vain(&state), Refusal::HeldTooLong);
        state.down_since = Some(now);
        assert_eq!(
            longest(&state, now + Duration::from_secs(5)),
            Some(Duration::from_secs(6))
        );
        assert_eq!(
            longest(&state, now + Duration::from_secs(6)),
            Some(Duration::from_secs(2))
        );
        assert_eq!(in_vain(&state), Refusal::OriginUnreachable);
        assert_eq!(longest(&State::<View>::default(), now), None);
    }

    #[tokio::test]
    async fn a_rendition_the_origin_does_not_know_is_refused_in_its_words() {
        let state = State {
            absent: Some((StatusCode::NOT_FOUND, Some("{}".into()))),
            ..live()
        };
        let refused = Refusal::Origin {
            status: StatusCode::NOT_FOUND,
            reason: Some("{}".into()),
        };
        assert_eq!(verdict(&state, Want::Now), Some(Err(refused)));
    }
}
