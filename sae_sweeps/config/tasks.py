"""The tasks that a command can name, and what each of them looks at."""

POINT_TASKS = ("train",)  # for each point
STUDY_TASKS = {  # of trained SAEs, which take a device; and the settings of each
    "stitch": ("stitch", "small", "large"),
    "meta_sae": ("meta", "latents", "saved"),
    "latents": ("latents", "saved"),
    "evaluate": ("evaluation", "saved"),
}
EXPORT_TASKS = ("export", "publish")  # of trained SAEs, whose files they rewrite
# for a sweep as a whole
SWEEP_TASKS = ("plan", "status", "report", "sync", "wandb_workspace", *EXPORT_TASKS, *STUDY_TASKS)
EXPORTS = ("sae_lens", "dictionary_learning", "sparsify", "saebench")
# the formats that a task has, its default first
FORMATS_OF = {"report": ("html", "md"), **dict.fromkeys(EXPORT_TASKS, EXPORTS)}
