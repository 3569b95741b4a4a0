//! ValidatingWebhookConfiguration.

use super::{Kind, webhook};

pub static KIND: Kind = webhook::CONFIGURATION;
