//! Times without shifts.

use super::Period;
use cronexpr::{Crontab, MakeTimestamp};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

/// A time without shifts, again and again.
///
/// It starts when the clock on the wall shows the time of `cron`, each date once: a time that the change to summer
/// skips starts as much later as the clock jumps, one that the change to winter repeats starts the first time. It lasts
/// its duration in hours that pass, so a freeze over the change to summer ends an hour later on the wall.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Freeze {
    /// When it starts.
    pub cron: Cron,
    /// How long it lasts.
    pub duration: Period,
    /// Whose clock `cron` speaks of.
    #[serde(default)]
    pub time_zone: Zone,
    /// Why, for whoever is stopped by it.
    #[serde(default)]
    pub reason: String,
    #[serde(skip)]
    last: Last,
}

/// A freeze that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ongoing {
    /// Since when.
    pub since: Timestamp,
    /// The first moment after it; `None` when it starts again before it ends, time after time.
    pub until: Option<Timestamp>,
}

impl Freeze {
    /// Does it hold at this moment? Starts that overlap are one freeze.
    ///
    /// Schedules are slow to follow, hence the last answer is kept for as long as it is surely the same.
    pub fn ongoing(&self, now: Timestamp) -> Option<Ongoing> {
        if let Some(answer) = self.last.at(now) {
            return answer.ongoing;
        }
        let ongoing = self.find(now);
        if let Some((from, until)) = self.constant(now, ongoing) {
            self.last.keep(Answer { from, until, ongoing });
        }
        ongoing
    }

    fn find(&self, now: Timestamp) -> Option<Ongoing> {
        let earliest = now.checked_sub(self.duration.0).ok()?.checked_sub(CLOCK_CHANGE).ok()?;
        let mut starts = self.starts(earliest);
        // Around a clock change starts may come out of order, hence the margin.
        let since = starts
            .by_ref()
            .take_while(|start| *start <= now.saturating_add(CLOCK_CHANGE).unwrap_or(now))
            .filter(|start| *start <= now)
            .find(|start| self.end(*start) > now)?;
        let mut until = self.end(since);
        for _ in 0..MOST_OVERLAPS {
            match starts.next() {
                Some(start) if start <= until => until = until.max(self.end(start)),
                _ => return Some(Ongoing { since, until: Some(until) }),
            }
        }
        Some(Ongoing { since, until: None })
    }

    /// From when until when what was found is surely the same: nothing ends and nothing starts in between. None when that
    /// is too much to find out.
    fn constant(&self, now: Timestamp, found: Option<Ongoing>) -> Option<(Timestamp, Timestamp)> {
        let mut from = now.checked_sub(SOME_TIME).ok()?;
        let mut until = Timestamp::MAX;
        let mut starts = self.starts(from.checked_sub(self.duration.0).ok()?.checked_sub(CLOCK_CHANGE).ok()?);
        for _ in 0..MOST_STARTS {
            match starts.next() {
                Some(start) if start <= now => {
                    // What has ended was another answer; what has not is this one, or comes after it.
                    let end = self.end(start);
                    from = from.max(if end <= now { end } else { from });
                }
                Some(start) if start <= until.saturating_add(CLOCK_CHANGE).unwrap_or(until) => {
                    until = until.min(start);
                }
                _ => {
                    if let Some(found) = found {
                        from = from.max(found.since);
                        until = until.min(self.end(found.since));
                    }
                    return Some((from, until));
                }
            }
        }
        None
    }

    fn end(&self, start: Timestamp) -> Timestamp {
        start.saturating_add(self.duration.0).unwrap_or(Timestamp::MAX)
    }

    /// The starts from a moment on. The schedule is followed on a clock that knows no changes, and each time on it is
    /// then looked up on the real one.
    fn starts(&self, from: Timestamp) -> impl Iterator<Item = Timestamp> {
        let on_the_wall = self.time_zone.0.to_datetime(from);
        let mut wall = TimeZone::UTC.to_timestamp(on_the_wall).ok();
        std::iter::from_fn(move || {
            wall = self.cron.next(wall?);
            self.time_zone.0.to_timestamp(TimeZone::UTC.to_datetime(wall?)).ok()
        })
    }
}

/// No clock changes by more in one step, but for zones that moved across the date line.
const CLOCK_CHANGE: SignedDuration = SignedDuration::from_hours(3);

/// How long before the moment that was asked about an answer is kept: replicas ask about moments that are apart by what
/// their clocks may be wrong by.
const SOME_TIME: SignedDuration = SignedDuration::from_mins(1);

/// Of a schedule with more starts than this in the time that matters no answer is kept.
const MOST_STARTS: usize = 1000;

/// The last answer.
#[derive(Debug, Default)]
struct Last(Mutex<Option<Answer>>);

/// An answer, and from when until when it is the same.
#[derive(Debug, Clone, Copy)]
struct Answer {
    from: Timestamp,
    until: Timestamp,
    ongoing: Option<Ongoing>,
}

impl Last {
    fn at(&self, now: Timestamp) -> Option<Answer> {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.filter(|last| last.from <= now && now < last.until)
    }

    fn keep(&self, answer: Answer) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }
}

impl Clone for Last {
    fn clone(&self) -> Self {
        Self(Mutex::new(*self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// A freeze that starts again this often before it ends is taken for endless.
const MOST_OVERLAPS: usize = 1000;

/// When a freeze starts: minute, hour, day of month, month, day of week.
#[derive(Debug, Clone)]
pub struct Cron {
    text: String,
    /// One schedule, and a second for what the reader of schedules gets wrong.
    crontabs: Vec<Crontab>,
}

impl Cron {
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let next = |crontab: &Crontab| Some(crontab.find_next(MakeTimestamp(after)).ok()?.timestamp());
        self.crontabs.iter().filter_map(next).min()
    }
}

impl<'de> Deserialize<'de> for Cron {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let refuse = |reason: &str| D::Error::custom(format_args!("`{text}` is no schedule: {reason}"));
        let fields: Vec<_> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(refuse("write minute, hour, day of month, month and day of week, such as `0 18 * * FRI`"));
        };
        let parse = |fields: [&str; 5]| cronexpr::parse_crontab(&format!("{} UTC", fields.join(" ")));
        let crontab = parse([minute, hour, day, month, weekday]).map_err(|error| {
            let error = error.to_string();
            let reason = error.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
            refuse(reason.trim_start_matches(['^', ' ']))
        })?;
        let is_last = |item: &str| item.ends_with(['L', 'l']);
        if weekday.split(',').any(|item| item.len() == 2 && is_last(item)) {
            return Err(refuse("the last such weekday of a month is not supported"));
        }
        let mut crontabs = vec![crontab];
        // The reader of schedules overlooks that December's last day is followed by a smaller month.
        let last_day = day.split(',').any(is_last);
        let december =
            parse(["0", "0", "1", month, "*"]).is_ok_and(|crontab| crontab.matches(DECEMBER).is_ok_and(|is| is));
        if last_day && december {
            let days: Vec<_> = day.split(',').map(|item| if is_last(item) { "31" } else { item }).collect();
            crontabs.extend(parse([minute, hour, &days.join(","), "12", weekday]));
        }
        let cron = Self { text: text.clone(), crontabs };
        // From 1970 on, so that a leap day is found.
        if cron.next(Timestamp::UNIX_EPOCH).is_none() {
            return Err(refuse("it is a date that never comes"));
        }
        Ok(cron)
    }
}

const DECEMBER: &str = "2026-12-01T00:00:00Z";

impl JsonSchema for Cron {
    fn schema_name() -> Cow<'static, str> {
        "Cron".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^\s*\S+(\s+\S+){4}\s*$",
            "description": "Minute, hour, day of month, month and day of week, such as 0 18 * * FRI.",
        })
    }
}

impl Serialize for Cron {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// A time zone by its IANA name; UTC if left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(pub TimeZone);

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let unknown = |_| D::Error::custom(format_args!("no time zone `{name}`; write it like `Europe/Berlin`"));
        // The bundled data and nothing else: every machine must come to the same answer.
        jiff::tz::TimeZoneDatabase::bundled().get(&name).map(Self).map_err(unknown)
    }
}

impl JsonSchema for Zone {
    fn schema_name() -> Cow<'static, str> {
        "Zone".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "description": "A time zone by its IANA name, such as Europe/Berlin.",
        })
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.iana_name().unwrap_or("UTC"))
    }
}
