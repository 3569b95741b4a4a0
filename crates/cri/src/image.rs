//! Image calls. Invariant: `image_status` of an absent image is `None`, removing an absent image is success.

use crate::connect::{CALL_LIMIT, PULL_LIMIT, within};
use crate::v1::*;
use crate::{Client, Result};

impl Client {
    /// `ListImages`: every image the runtime has.
    pub async fn image_list(&self) -> Result<Vec<Image>> {
        Ok(within("ListImages", CALL_LIMIT, self.images.clone().list_images(ListImagesRequest { filter: None }))
            .await?
            .images)
    }

    /// `ImageStatus`: the image, or nothing when the runtime does not have it.
    pub async fn image_status(&self, image: ImageSpec) -> Result<Option<Image>> {
        Ok(self.image_status_verbose(image, false).await?.image)
    }

    /// `ImageStatus` with the runtime's own details in `info`.
    pub async fn image_status_verbose(&self, image: ImageSpec, verbose: bool) -> Result<ImageStatusResponse> {
        let request = ImageStatusRequest { image: Some(image), verbose };
        match within("ImageStatus", CALL_LIMIT, self.images.clone().image_status(request)).await {
            Err(error) if error.is_not_found() => Ok(ImageStatusResponse::default()),
            other => other,
        }
    }

    /// `PullImage`; returns the reference the runtime knows it by from now on.
    pub async fn image_pull(
        &self,
        image: ImageSpec,
        auth: Option<AuthConfig>,
        sandbox_config: Option<PodSandboxConfig>,
    ) -> Result<String> {
        let request = PullImageRequest { image: Some(image), auth, sandbox_config };
        Ok(within("PullImage", PULL_LIMIT, self.images.clone().pull_image(request)).await?.image_ref)
    }

    /// `RemoveImage`. An absent image is success.
    pub async fn image_remove(&self, image: &str) -> Result<()> {
        let request = RemoveImageRequest { image: Some(ImageSpec { image: image.to_string(), ..Default::default() }) };
        match within("RemoveImage", CALL_LIMIT, self.images.clone().remove_image(request)).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// `ImageFsInfo`: the file systems that hold images and how much of them images take.
    pub async fn image_fs_info(&self) -> Result<ImageFsInfoResponse> {
        within("ImageFsInfo", CALL_LIMIT, self.images.clone().image_fs_info(ImageFsInfoRequest {})).await
    }
}
