"""An exported model behind HTTP: KServe v2, image files in and JSON out, a page to try it; without torch."""
