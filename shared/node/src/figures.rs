//! Quantities as people read them, on pages and in terminals alike.

/// A number of bytes in its largest unit, to two digits at least.
pub fn bytes(count: f64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024.0 {
        return format!("{count:.0} B");
    }
    let mut count = count / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if count < 1024.0 {
            break;
        }
        count /= 1024.0;
        unit = next;
    }
    if count < 10.0 { format!("{count:.1} {unit}") } else { format!("{count:.0} {unit}") }
}

/// A time span of so many seconds in its two largest units, below an hour in one.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_well() {
        let shown = [100.0, 2_048.0, 50e6, 1.5e9, 3e15].map(bytes);
        assert_eq!(shown, ["100 B", "2.0 KiB", "48 MiB", "1.4 GiB", "2728 TiB"]);
        assert_eq!([59, 3_599, 3_700, 90_000].map(span), ["59 s", "59 min", "1 h 1 min", "1 d 1 h"]);
    }
}
