//! MutatingWebhookConfiguration.

use super::{Kind, fill, webhook};

pub static KIND: Kind = Kind {
    defaults: |c| {
        webhook::defaults(c);
        fill::each(c, &["webhooks"], |hook| fill::unset(hook, "reinvocationPolicy", "Never"));
    },
    ..webhook::CONFIGURATION
};
