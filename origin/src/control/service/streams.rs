//! Creating, changing and removing streams.

use weir_shared::id::{ProjectId, StreamId, StreamKey};

use super::{ATTEMPTS, Consequences, Control, IfMatch, Refused, Renewal};
use crate::control::{
    lifecycle::{Action, Event, State, Status},
    model::{Limits, OnRotate, Settings, Stream},
    notice::Notice,
    secret,
    store::{Millis, Replay, StoreError, now},
};

/// A stream to create.
#[derive(Debug, Clone, Default)]
pub struct NewStream {
    /// `None`: made up.
    pub key: Option<StreamKey>,
    pub settings: Settings,
    pub active: bool,
    pub backstage: bool,
}

/// What to change; `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct Patch {
    pub settings: Option<Settings>,
    pub active: Option<bool>,
    pub backstage: Option<bool>,
}

/// How a creating call ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    pub stream: Stream,
    /// The call was a repetition; the stream was there already.
    pub replayed: bool,
}

/// A caller's own name for a request, with the SHA-256 of its body.
#[derive(Debug, Clone, Copy)]
pub struct Idempotency<'a> {
    pub key: &'a str,
    pub request_hash: &'a str,
}

impl Control {
    pub async fn create_stream(
        &self,
        project: &ProjectId,
        new: NewStream,
        idempotency: Option<Idempotency<'_>>,
    ) -> Result<Created, Refused> {
        let at = now();
        let mut tx = self.store.begin().await?;
        let limits = tx.limits(project).await?.ok_or(Refused::NoProject)?;
        if let Some(once) = idempotency {
            match tx.replay(project, once.key, once.request_hash, at).await? {
                Replay::New => {}
                Replay::Different => return Err(Refused::IdempotencyReused),
                Replay::Same(id) => {
                    let stream = tx.stream(project, &id).await?.ok_or(Refused::NoStream)?;
                    return Ok(Created { stream, replayed: true });
                }
            }
        }
        within_plan(&new.settings, &limits)?;
        if tx.count_streams(project).await? >= u64::from(limits.streams) {
            return Err(Refused::OverPlan {
                field: "streams",
                limit: u64::from(limits.streams),
            });
        }
        let stream = stream_of(project, new, at)?;
        // One that could not be pushed is not made.
        if let Some(limit) = self.node.full_for(&stream.key) {
            return Err(Refused::Full { limit });
        }
        tx.insert_stream(&stream).await.map_err(|error| match error {
            StoreError::Taken => Refused::Taken("streamKey"),
            other => Refused::Store(other),
        })?;
        if let Some(once) = idempotency {
            tx.remember(project, once.key, once.request_hash, &stream.id, at)
                .await?;
        }
        self.outbox.record(&mut tx, Notice::Created, &stream, at).await?;
        tx.commit().await?;
        self.apply(&stream, &limits);
        Ok(Created {
            stream,
            replayed: false,
        })
    }

    pub async fn stream(&self, project: &ProjectId, id: &StreamId) -> Result<Stream, Refused> {
        match self.store.stream(project, id).await? {
            Some(stream) => Ok(stream),
            None if self.store.project(project).await?.is_none() => Err(Refused::NoProject),
            None => Err(Refused::NoStream),
        }
    }

    /// `patch` decides from the stream as it is.
    pub async fn patch_stream(
        &self,
        project: &ProjectId,
        id: &StreamId,
        if_match: IfMatch,
        patch: impl Fn(&Stream) -> Patch + Send + Sync,
    ) -> Result<Stream, Refused> {
        self.change(project, id, if_match, |stream, limits, at| {
            let Patch {
                settings,
                active,
                backstage,
            } = patch(stream);
            if let Some(settings) = settings {
                within_plan(&settings, limits)?;
                stream.settings = settings;
            }
            let mut all = Consequences::default();
            let events = [active.map(Event::SetActive), backstage.map(Event::SetBackstage)];
            for event in events.into_iter().flatten() {
                let step = stream.state.step(event, at, limits.timers())?;
                all.add(Consequences::of(step, stream));
            }
            Ok(all)
        })
        .await
    }

    /// One move of the stream's life.
    pub async fn command(&self, project: &ProjectId, id: &StreamId, event: Event) -> Result<Stream, Refused> {
        self.change(project, id, IfMatch::Any, |stream, limits, at| {
            let step = stream.state.step(event, at, limits.timers())?;
            Ok(Consequences::of(step, stream))
        })
        .await
    }

    /// New user name and password; a publisher that is connected stays, unless the stream says otherwise.
    pub async fn rotate_push(&self, project: &ProjectId, id: &StreamId) -> Result<Stream, Refused> {
        self.rotate(project, id, |stream| {
            stream.credentials.username = secret::username();
            stream.credentials.password = secret::password();
            stream.credentials.backup_password = secret::password();
        })
        .await
    }

    /// A new `?t=` token; the old one is refused from now on.
    pub async fn regenerate_token(&self, project: &ProjectId, id: &StreamId) -> Result<Stream, Refused> {
        self.rotate(project, id, |stream| {
            stream.credentials.token = secret::token();
            stream.credentials.backup_token = secret::token();
        })
        .await
    }

    async fn rotate(
        &self,
        project: &ProjectId,
        id: &StreamId,
        renew: impl Fn(&mut Stream) + Send + Sync,
    ) -> Result<Stream, Refused> {
        self.change(project, id, IfMatch::Any, |stream, _, _| {
            renew(stream);
            let live = stream.status() == Status::Live;
            let kick = live && stream.settings.on_rotate == OnRotate::Kick;
            Ok(Consequences {
                actions: if kick { vec![Action::Kick] } else { Vec::new() },
                notices: Vec::new(),
            })
        })
        .await
    }

    /// Whether playback has to be signed, and with which secrets.
    pub async fn set_signed_playback(
        &self,
        project: &ProjectId,
        id: &StreamId,
        enabled: bool,
        renewal: Renewal,
    ) -> Result<Stream, Refused> {
        self.change(project, id, IfMatch::Any, |stream, _, _| {
            stream.settings.signed_playback = enabled;
            let credentials = &mut stream.credentials;
            if renewal.rotate {
                let previous = std::mem::replace(&mut credentials.playback_secret, secret::playback_secret());
                credentials.previous_playback_secret = Some(previous);
            }
            if renewal.revoke_previous {
                credentials.previous_playback_secret = None;
            }
            Ok(Consequences::default())
        })
        .await
    }

    /// Forgets what was seekable; players at the live edge go on.
    pub async fn clear_dvr(&self, project: &ProjectId, id: &StreamId) -> Result<Stream, Refused> {
        self.change(project, id, IfMatch::Any, |stream, _, at| {
            stream.dvr_cleared = Some(at);
            Ok(Consequences {
                actions: vec![Action::ClearDvr],
                notices: Vec::new(),
            })
        })
        .await
    }

    /// Ends the stream and removes it. Recordings stay.
    pub async fn purge_stream(&self, project: &ProjectId, id: &StreamId) -> Result<(), Refused> {
        let mut attempt = 0;
        let stream = loop {
            attempt += 1;
            self.command(project, id, Event::Delete).await?;
            let mut tx = self.store.begin().await?;
            let stream = tx.stream(project, id).await?.ok_or(Refused::NoStream)?;
            tx.keep_recordings_of(&stream, now()).await?;
            match tx.remove_stream(&stream, now()).await {
                Err(StoreError::Conflict | StoreError::Busy) if attempt < ATTEMPTS => continue,
                other => other?,
            }
            tx.commit().await?;
            break stream;
        };
        self.owned.remove(&stream.key);
        self.node.remove(&stream.key);
        Ok(())
    }

    /// Makes sure that the streams named in the configuration exist. Their settings stay what the API made of them.
    pub async fn seed_streams(&self, project: &ProjectId, keys: &[StreamKey]) -> Result<(), Refused> {
        for key in keys {
            if self.store.stream_by_key(key).await?.is_some() {
                continue;
            }
            let new = NewStream {
                key: Some(key.clone()),
                settings: Settings {
                    name: key.to_string(),
                    ..Settings::default()
                },
                active: true,
                backstage: false,
            };
            match self.create_stream(project, new, None).await {
                // Another origin of the fleet was faster.
                Ok(_) | Err(Refused::Taken(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }
}

fn within_plan(settings: &Settings, limits: &Limits) -> Result<(), Refused> {
    let checks = [
        (
            "dvrDuration",
            settings.dvr_enabled,
            u64::from(settings.dvr_duration),
            limits.dvr_seconds,
        ),
        ("qualities", true, settings.qualities.len() as u64, limits.qualities),
    ];
    for (field, applies, wanted, limit) in checks {
        let limit = u64::from(limit);
        if applies && wanted > limit {
            return Err(Refused::OverPlan { field, limit });
        }
    }
    Ok(())
}

fn stream_of(project: &ProjectId, new: NewStream, at: Millis) -> Result<Stream, Refused> {
    let key = match new.key {
        Some(key) => key,
        None => secret::stream_key()?,
    };
    Ok(Stream {
        id: secret::stream_id()?,
        project: project.clone(),
        key,
        state: State {
            active: new.active,
            backstage: new.backstage,
            ..State::default()
        },
        settings: new.settings,
        credentials: secret::credentials(),
        dvr_cleared: None,
        version: 1,
        created_at: at,
        updated_at: at,
    })
}
