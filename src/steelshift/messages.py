"""Every sentence for users, in English and Chinese: what happened, where, and what to do.

The language follows STEELSHIFT_LANG (`en` or `zh`), else the locale.
"""

import os
import re
from contextvars import ContextVar

_SPOKEN: ContextVar[str | None] = ContextVar("spoken", default=None)
_CATALOGUE: dict[str, tuple[str, str]] = {
    "interrupted": (
        "Stopped at step {step}; the state is saved in {where}. Continue with the same command and --resume.",
        "已在第 {step} 步停止，状态保存在 {where}。用同一命令加 --resume 继续。",
    ),
    "shift_not_found": (
        "There is no shift and no file named {name}. Give one of {known}, or the path of a YAML file.",
        "没有名为 {name} 的偏移，也没有这个文件。请给出 {known} 之一，或一个 YAML 文件的路径。",
    ),
    "shift_unreadable": (
        "{where} does not describe a shift ({reason}). Write one `key: number` a line, as YAML.",
        "{where} 不是偏移描述（{reason}）。请用 YAML 每行写一个“键: 数值”。",
    ),
    "shift_unknown_key": (
        "{where} has the unknown key {name}. Correct or remove it; the keys are {known}.",
        "{where} 中有未知的键 {name}。请改正或删除；可用的键有 {known}。",
    ),
    "shift_out_of_range": (
        "{name} is {value} in {where}. Give a number from {low} to {high}.",
        "{where} 中 {name} 的值为 {value}。请给出 {low} 到 {high} 之间的数值。",
    ),
    "shift_unknown_metal": (
        "metal is {value} in {where}. Give one of {known}.",
        "{where} 中 metal 的值为 {value}。请给出 {known} 之一。",
    ),
    "shift_prevalence": (
        "prevalence is {value} in {where}. Map class names to shares above 0 that sum to less than 1.",
        "{where} 中 prevalence 的值为 {value}。请为类别名给出大于 0 且总和小于 1 的比例。",
    ),
    "shift_inverted": (
        "inverted is {value} in {where}. List class names.",
        "{where} 中 inverted 的值为 {value}。请列出类别名。",
    ),
    "shift_unknown_class": (
        "{key} names the class {name}, which is not drawn. Give some of {known}.",
        "{key} 中的类别 {name} 无法绘制。请从 {known} 中选择。",
    ),
    "lines_too_short": (
        "{images} images a line are too few for every class to occur. Ask for {least} or more.",
        "每条产线 {images} 张图像太少，无法覆盖所有类别。请至少要求 {least} 张。",
    ),
    "folder_not_empty": (
        "{where} exists and is not an empty folder. Name a new folder, or empty this one first.",
        "{where} 已存在且不是空文件夹。请换一个新文件夹，或先清空它。",
    ),
    "cannot_write": (
        "Cannot write {path} ({why}). Free space or choose a folder that can be written; what was there is unharmed.",
        "无法写入 {path}（{why}）。请释放空间或换一个可写的文件夹；原有内容未受影响。",
    ),
    "not_a_file": ("It is not a file.", "不是文件。"),
    "empty_file": ("The file is empty.", "文件为空。"),
    "too_many_bytes": (
        "The file has {size} bytes, more than the {limit} allowed.",
        "文件有 {size} 字节，超过上限 {limit}。",
    ),
    "cannot_open": ("The file cannot be opened ({why}).", "无法打开文件（{why}）。"),
    "too_many_pixels": (
        "The image has {width} x {height} pixels, more than the {limit} allowed; cut it into tiles first.",
        "图像为 {width} x {height} 像素，超过上限 {limit}；请先切成小块。",
    ),
    "too_small": (
        "The image has {width} x {height} pixels, too few to see anything.",
        "图像只有 {width} x {height} 像素，太小。",
    ),
    "not_an_image": (
        "The content is no PNG, JPEG, BMP or TIFF, whatever the name says.",
        "无论文件名如何，其内容不是 PNG、JPEG、BMP 或 TIFF。",
    ),
    "broken_image": ("The image is damaged or cut short ({why}).", "图像已损坏或不完整（{why}）。"),
    "float_image": (
        "The image holds floating-point numbers; store 8, 12 or 16 bit grey values.",
        "图像为浮点数；请保存为 8、12 或 16 位灰度。",
    ),
    "depth_unknown": (
        "The image holds values from {lowest} to {highest}; only 8, 12 and 16 bit are known.",
        "图像数值范围为 {lowest} 到 {highest}；只支持 8、12 和 16 位。",
    ),
    "crop_outside": (
        "The crop {crop} reaches outside the image of {width} x {height} pixels.",
        "裁剪框 {crop} 超出 {width} x {height} 像素的图像。",
    ),
    "classes_unreadable": (
        "The class file {path} cannot be read ({why}). Write a YAML map from class name to folder names.",
        "无法读取类别文件 {path}（{why}）。请写成从类别名到文件夹名的 YAML 映射。",
    ),
    "classes_malformed": (
        "The class file {path} is not a map of at least two classes. Write `class: [folder, folder]` a line.",
        "类别文件 {path} 不是至少含两个类别的映射。请每行写“类别: [文件夹, 文件夹]”。",
    ),
    "classes_ambiguous": (
        "The class file {path} gives the folder {folder} to two classes. Give it to one.",
        "类别文件 {path} 把文件夹 {folder} 给了两个类别。请只给一个。",
    ),
    "tasks_unreadable": (
        "The tasks file {path} cannot be read ({why}). Write a YAML map from task name to kind and classes.",
        "无法读取任务文件 {path}（{why}）。请写成从任务名到 kind 和 classes 的 YAML 映射。",
    ),
    "task_malformed": (
        "The task {task} in {path} is not declared rightly: {why}. Correct it; examples/tasks.yaml shows how.",
        "{path} 中的任务 {task} 声明有误：{why}。请改正；示例见 examples/tasks.yaml。",
    ),
    "task_no_data": (
        "The task {task} has its labels in {name}, but no path of {places} ends so. Name that place, or correct it.",
        "任务 {task} 的标签在 {name} 中，但 {places} 中没有以此结尾的路径。请给出该位置，或改正任务。",
    ),
    "task_no_column": (
        "The task {task} has its labels in the column {column}, which {where} does not have. There are: {known}.",
        "任务 {task} 的标签在列 {column} 中，但 {where} 没有该列。现有的列：{known}。",
    ),
    "task_no_labels": (
        "No image of {where} has a label of two classes for the task {task}. Check its column and its classes.",
        "{where} 中没有图像带有任务 {task} 的两个类别的标签。请检查它的列和类别。",
    ),
    "task_unlisted": (
        "Task {task}: {count} images have a value that it does not list, and no label for it: {names}.",
        "任务 {task}：{count} 张图像的值未被列出，因此没有该任务的标签：{names}。",
    ),
    "encoder_cannot_share": (
        "The encoder has a layer whose channels tasks cannot share ({layer}). Use alexnet, a vgg or a resnet.",
        "该编码器含有无法在任务间共享通道的层（{layer}）。请使用 alexnet、vgg 或 resnet。",
    ),
    "analyse_one_task": (
        "{run} holds no inspector of declared tasks. Name a finished run of `steelshift fit --tasks ...`.",
        "{run} 中没有多任务检测器。请给出 `steelshift fit --tasks ...` 完成的运行。",
    ),
    "analyse_other_tasks": (
        "{other} was trained on other tasks than {run}. Compare runs of one tasks file.",
        "{other} 与 {run} 的任务不同。请比较使用同一任务文件的运行。",
    ),
    "analyse_other_encoder": (
        "The two runs differ in encoder or image size, so their gradients cannot be compared. Compare runs of one.",
        "两次运行的编码器或图像尺寸不同，无法比较梯度。请比较两者都相同的运行。",
    ),
    "analysing": ("analyse", "分析"),
    "groups_not_yaml": (
        "{path} is no YAML file. Name one that ends in .yaml; the picture gets its name with .svg.",
        "{path} 不是 YAML 文件。请给出以 .yaml 结尾的文件名；图片使用同名的 .svg。",
    ),
    "group_stopped": (
        "Stopped; {path} is not written. Run the same command again.",
        "已停止；未写入 {path}。请重新运行同一命令。",
    ),
    "groups_of_one": (
        "{path} declares one task, and grouping needs two or more. Declare more tasks.",
        "{path} 只声明了一个任务，而分组至少需要两个。请声明更多任务。",
    ),
    "tasks_never_meet": (
        "No batch holds labels of two tasks, so their gradients cannot be compared. Use --measure maps.",
        "没有任何批次同时带有两个任务的标签，因此无法比较其梯度。请使用 --measure maps。",
    ),
    "relating": ("relate tasks", "比较任务"),
    "tasks_share_nothing": (
        "{what} works where tasks meet, and these networks share no channels. Give another --sharing or --ratios.",
        "{what} 作用于任务共用之处，而这些网络没有共享通道。请更换 --sharing 或 --ratios。",
    ),
    "tasks_cannot_split": (
        "The reading split needs shared and private channels. Use --sharing progressive with ratios that end below 1.",
        "读法 split 需要共享通道和私有通道。请使用 --sharing progressive，且末端比例小于 1。",
    ),
    "tasks_look_alike": (
        "The reading {reading} tells tasks by their private channels, and these networks have none. "
        "Use --sharing progressive with ratios that end below 1.",
        "读法 {reading} 依靠私有通道区分任务，而这些网络没有私有通道。请使用 --sharing progressive，且末端比例小于 1。",
    ),
    "ratios_unused": (
        "Ratios are for --sharing progressive; {sharing} has its own. Leave --ratios out.",
        "--ratios 只用于 --sharing progressive；{sharing} 自有比例。请去掉 --ratios。",
    ),
    "task_no_name": (
        "A task of {path} has no name. Write one before its colon.",
        "{path} 中有任务没有名称。请在冒号前写上名称。",
    ),
    "aggregator_needs": (
        "The aggregator {name} needs torchjd and its solvers. Install them: pip install 'steelshift[tasks]'.",
        "聚合器 {name} 需要 torchjd 及其求解器。请安装：pip install 'steelshift[tasks]'。",
    ),
    "no_target": (
        "There is no target line. Name its images with --target; only a run of declared tasks (--tasks) needs none.",
        "没有目标产线。请用 --target 给出其图像；只有声明了任务（--tasks）的运行可以没有。",
    ),
    "method_one_task": (
        "The method {method} knows one task alone. With --tasks use one of {known}.",
        "方法 {method} 只会一个任务。使用 --tasks 时请选 {known} 之一。",
    ),
    "few_with_tasks": (
        "A few labelled target images (target_labels) train one task alone, and not declared tasks. Leave them out.",
        "少量带标签的目标图像（target_labels）只能训练单一任务，不能用于声明的任务。请去掉它。",
    ),
    "not_with_tasks": (
        "The option {key} does not go with --tasks: the tasks file says which values are of which class. Leave it out.",
        "选项 {key} 不能与 --tasks 同用：哪个值属于哪个类别由任务文件说明。请去掉它。",
    ),
    "tasks_unjudged": (
        "How well they do on the target line, only labels can tell.",
        "它们在目标产线上的表现，只有标签才能说明。",
    ),
    "tasks_unlabelled": (
        "No image has a label for {names}: not scored.",
        "没有图像带有 {names} 的标签：未评分。",
    ),
    "not_together": (
        "{one} and {other} do not go together. Leave one out.",
        "{one} 与 {other} 不能同用。请去掉其中一个。",
    ),
    "one_task_only": (
        "{what} needs an inspector of one task, and this one answers {count}. Leave it out, or use another inspector.",
        "{what} 需要单任务检测器，而该检测器有 {count} 个任务。请去掉该选项，或换用其他检测器。",
    ),
    "row_tasks_sure": ("sure of every task", "所有任务都有把握"),
    "row_task_uncertain": (
        "{task}: {p:.3f} is below the threshold {threshold:.3f}; a person should look",
        "{task}：{p:.3f} 低于阈值 {threshold:.3f}；请人工查看",
    ),
    "tasks_verdict": (
        "Tasks in one network: {count}. Mean class accuracy {mean:.3f} on held-out source images, over the {judged} of "
        "which two classes are there.",
        "一个网络承担 {count} 个任务：在保留的源图像上，其中出现至少两个类别的 {judged} 个任务的平均类别准确率为 "
        "{mean:.3f}。",
    ),
    "tasks_untold": (
        "Tasks in one network: {count}. Held-out source images show no two classes of any, so how well it does is not "
        "known; label more.",
        "一个网络承担 {count} 个任务。保留的源图像中没有任何任务出现两个类别，因此效果未知；请标注更多图像。",
    ),
    "tasks_untold_target": (
        "Labelled target test images show no two classes of any task, so what adaptation did is not known; label more.",
        "带标签的目标测试图像中没有任何任务出现两个类别，因此自适应的效果未知；请标注更多图像。",
    ),
    "estimate_one_task": (
        "{path} keeps nothing to estimate from: an estimate is of one task. Judge it with evaluate on labelled images.",
        "{path} 没有可供估计的内容：估计只针对单个任务。请用 evaluate 在带标签的图像上评判。",
    ),
    "no_classes": (
        "{where} does not hold images of two classes. Put images into a folder a class, or use a manifest with labels.",
        "{where} 中没有两个类别的图像。请每个类别一个文件夹，或使用带标签的清单。",
    ),
    "no_images": (
        "There is no image under {where}. Check the path, and the folders that --classes lists.",
        "{where} 下没有图像。请检查路径以及 --classes 所列的文件夹。",
    ),
    "no_such_place": (
        "{path} is neither a folder nor a manifest (.csv, .parquet). Check the path.",
        "{path} 既不是文件夹也不是清单（.csv、.parquet）。请检查路径。",
    ),
    "manifest_no_path": (
        "The manifest {path}, line {line}, has no path. It needs a column `path` with a value in every row.",
        "清单 {path} 第 {line} 行没有路径。每行都需要 path 列的值。",
    ),
    "manifest_split": (
        "The manifest {path}, line {line}, has the split {value}. Use train, val, test or nothing.",
        "清单 {path} 第 {line} 行的划分为 {value}。请用 train、val、test 或留空。",
    ),
    "manifest_crop": (
        "The manifest {path}, line {line}, has the crop {value}. Write `x y width height` in pixels.",
        "清单 {path} 第 {line} 行的裁剪框为 {value}。请写成像素的“x y 宽 高”。",
    ),
    "manifest_unreadable": (
        "The manifest {path} cannot be read ({why}). Save it as CSV in UTF-8 or as parquet.",
        "无法读取清单 {path}（{why}）。请保存为 UTF-8 的 CSV 或 parquet。",
    ),
    "all_unreadable": (
        "None of {count} images can be read; the first is {path}: {why}",
        "{count} 张图像都无法读取；第一张是 {path}：{why}",
    ),
    "smaller_than_tile": (
        "The image has {width} x {height} pixels, less than a tile of {tile}; give a smaller --tile.",
        "图像为 {width} x {height} 像素，小于边长 {tile} 的小块；请用更小的 --tile。",
    ),
    "with_mm_per_pixel": ("given together with --mm-per-pixel", "与 --mm-per-pixel 一起给出"),
    "needs_strip": (
        "The options {options} are for whole strips. Add --strip, or leave them out.",
        "选项 {options} 只用于整条带钢。请加上 --strip，或去掉它们。",
    ),
    "not_with_strip": (
        "The options {options} are not for whole strips. Leave them out, or --strip.",
        "选项 {options} 不能用于整条带钢。请去掉它们，或去掉 --strip。",
    ),
    "row_passed": (
        "passed by the first stage: score {score:.2f} below {threshold:.2f}",
        "第一级已放行：得分 {score:.2f} 低于 {threshold:.2f}",
    ),
    "strip_told": (
        "{defects} defects: {defect_list}   strip maps: {maps}",
        "缺陷 {defects} 处：{defect_list}   带钢图：{maps}",
    ),
    "strip_forwarded": (
        "the first stage passed {passed} of {tiles} tiles",
        "第一级放行了 {tiles} 个小块中的 {passed} 个",
    ),
    "strip_all_defects": (
        "The inspector has no class `qualified`, so every tile counts as a defect.",
        "检测器没有 qualified 类别，因此每个小块都算作缺陷。",
    ),
    "first_stage_tile": (
        "The first stage was fitted on tiles of {tile} pixels, not {given}. Give --tile {tile}, or fit another.",
        "第一级是用边长 {tile} 像素的小块拟合的，而 --tile 为 {given}。请给出 --tile {tile}，或另行拟合。",
    ),
    "first_stage_qualified": (
        "A first stage passes tiles as `qualified`, and the inspector has no such class ({classes}). Leave it out.",
        "第一级把小块按 qualified 放行，但检测器没有这个类别（{classes}）。请不要使用第一级。",
    ),
    "first_stage_few": (
        "There are {count} tiles ({kind}) for the part `{part}`; {least} are needed. Give more labelled images.",
        "“{part}”部分只有 {count} 个小块（{kind}），太少：至少需要 {least} 个。请提供更多带标签的图像。",
    ),
    "first_stage_sizes": (
        "The tiles have sizes {sizes}. All must be squares of one size, {least} pixels or more, a multiple of {cell}.",
        "小块尺寸为 {sizes}。必须都是同一边长的正方形，边长至少 {least} 像素且为 {cell} 的倍数。",
    ),
    "first_stage_broken": (
        "The first stage {path} cannot be used ({why}). Fit it again.",
        "无法使用第一级 {path}（{why}）。请重新拟合。",
    ),
    "first_stage_told": (
        "on {n} defective tiles of images that it was not fitted on it passes {missed:.2%} (95 % interval up to "
        "{high:.2%}; wanted {miss:.2%}), and it forwards {forwarded:.1%} of the qualified ones",
        "在未参与拟合的图像中，{n} 个缺陷小块被放行 {missed:.2%}（95% 区间上限 {high:.2%}；要求 {miss:.2%}），"
        "合格小块有 {forwarded:.1%} 被送往下一级",
    ),
    "some_unreadable": (
        "{count} files of the {line} line cannot be read and are left out; the first is {path}: {why}",
        "{line} 产线有 {count} 个文件无法读取，已略去；第一个是 {path}：{why}",
    ),
    "left_out": (
        "The folder {folder} of the {line} line is in no class and its {count} images are left out.",
        "{line} 产线的文件夹 {folder} 不属于任何类别，其 {count} 张图像已略去。",
    ),
    "task_part_empty": (
        "Task {task} has no label among the source images for {part}; nothing is measured of it there.",
        "任务 {task} 在用于{part}的源图像中没有标签；该部分不作任何评估。",
    ),
    "part_validation": ("validation (calibration and choice)", "验证（校准和选择）"),
    "part_test": ("testing", "测试"),
    "empty_class": (
        "The class {name} has no image on the source line; the inspector will hardly ever answer it.",
        "源产线没有类别 {name} 的图像；检测器几乎不会给出它。",
    ),
    "too_few_images": (
        "The {line} line's {count} images are too few to split, or too few of each class. Give it at least 10, and 5 "
        "of each class.",
        "{line} 产线的 {count} 张图像太少，或每类太少，无法划分。请至少提供 10 张，且每类至少 5 张。",
    ),
    "decoding": ("decode {line}", "解码 {line}"),
    "judging_candidates": ("compare checkpoints", "比较检查点"),
    "encoder_does_not_fit": (
        "The encoder {name} cannot be built for images of {size} pixels ({why}). Choose another size or weights file.",
        "无法为 {size} 像素的图像构建编码器 {name}（{why}）。请换尺寸或权重文件。",
    ),
    "encoder_unknown": (
        "Neither torchvision nor timm has an encoder {name}. Try alexnet, resnet18 or another of their names.",
        "torchvision 和 timm 中都没有编码器 {name}。请试 alexnet、resnet18 或其他名称。",
    ),
    "few_no_match": (
        "{path} gives no image of the target line a class of the source line. Take images from the target folders.",
        "{path} 没有为目标产线的任何图像给出源产线已有的类别。请从目标文件夹中选取图像。",
    ),
    "other_threads_known": (
        "{path}: {count} rows were made with another number of threads than {now} a job; they are made anew.",
        "{path}：有 {count} 行是用不同于每个任务 {now} 个线程得到的；将重新计算。",
    ),
    "few_are_all": (
        "{path} labels every image of the target test split, or one of its strip: none is left to judge. Label fewer.",
        "{path} 标注了目标测试集的全部图像（或同一带钢的图像），没有剩下可供评判的图像。请减少标注。",
    ),
    "few_are_of_the_target": (
        "--target-labels cannot go with normalization domain-specific: labelled images would count as the source.",
        "--target-labels 不能与 domain-specific 归一化同用：带标注的目标图像会被当作源产线。",
    ),
    "method_ignores_labels": (
        "{method} cannot train on labelled target images. Leave --target-labels out, or use e.g. dann.",
        "{method} 不能用带标注的目标图像训练。请去掉 --target-labels，或换用其他方法，例如 dann。",
    ),
    "few_left_out": (
        "{path}: {count} labels are of images that are not in the target line, or of unknown classes; left out.",
        "{path}：{count} 个标注对应的图像不在目标产线中，或类别未知；已忽略。",
    ),
    "auto_chose": (
        "auto chose {method} by {rule}, without target labels ({tried}).",
        "自动选择：依据 {rule}，不用目标标注，选中 {method}（{tried}）。",
    ),
    "auto_left_out": (
        "{method} scores higher but was left out: its accuracy on source validation images is far below another's, or "
        "it gives nearly all target images one answer.",
        "{method} 得分更高但未被采用：它在源验证图像上的准确率远低于其他方法，或对几乎所有目标图像给出同一答案。",
    ),
    "method_needs_normalization": (
        "{method} adapts batch normalization layers, and this encoder has none. Use one such as resnet18.",
        "{method} 调整的是批归一化层，而这个编码器没有。请用 resnet18 之类的编码器。",
    ),
    "no_normalization": (
        "The normalization {kind} needs batch normalization layers, and {encoder} has none. "
        "Use joint, or an encoder such as resnet18.",
        "归一化方式 {kind} 需要批归一化层，而 {encoder} 没有。请用 joint，或 resnet18 之类的编码器。",
    ),
    "knob_range": (
        "The knob {key} is {value}; it must be {range}.",
        "方法参数 {key} 为 {value}；应为 {range}。",
    ),
    "option_range": (
        "The option {key} is {value}; it must be {range}.",
        "选项 {key} 为 {value}；应为 {range}。",
    ),
    "unknown_method": (
        "There is no method {name}. Choose one of {known}.",
        "没有方法 {name}。请从 {known} 中选择。",
    ),
    "unknown_key": (
        "There is no key {key}. The keys are {known}.",
        "没有键 {key}。可用的键有 {known}。",
    ),
    "wrong_value": (
        "The key {key} is {value!r}; it must be {wanted}.",
        "键 {key} 为 {value!r}；应为 {wanted}。",
    ),
    "config_unreadable": (
        "The config file {path} cannot be read ({why}). Write it as YAML, one `key: value` a line.",
        "无法读取配置文件 {path}（{why}）。请用 YAML 每行写一个“键: 值”。",
    ),
    "no_device": (
        "There is no device {name} here. Use auto or cpu.",
        "此处没有设备 {name}。请用 auto 或 cpu。",
    ),
    "too_little_memory": (
        "Training needs {needed} GB of memory beside the {weights} GB of this network's weights, and {free} GB are "
        "free. Choose a smaller size or another encoder, close other programs, or train on a machine with more memory.",
        "除该网络 {weights} GB 的权重外，训练还需要 {needed} GB 内存，而空闲内存只有 {free} GB。"
        "请选择更小的 size 或其他 encoder，关闭其他程序，或换用内存更大的机器。",
    ),
    "not_finite": (
        "The loss of phase {phase} is not finite at step {step} for the fourth time, each time at half the learning "
        "rate. The last good checkpoint is in {where}; start anew with a lower lr, or with precision fp32.",
        "阶段 {phase} 在第 {step} 步的损失第四次非有限值（每次学习率减半）。"
        "最后的好检查点在 {where}；请以更低的 lr 或 fp32 精度重新开始。",
    ),
    "run_exists": (
        "{path} exists and is not empty. Add --resume to continue it, or choose another folder.",
        "{path} 已存在且不为空。加 --resume 继续，或换一个文件夹。",
    ),
    "other_option": (
        "The run {path} was begun with {key} = {before!r}, and now it is {now!r}. "
        "Resume with the same options, or choose another folder.",
        "运行 {path} 开始时 {key} = {before!r}，现在是 {now!r}。请用相同选项继续，或换一个文件夹。",
    ),
    "not_a_run": (
        "{path} is not a run: it has no config.yaml and holds other files. Choose another folder.",
        "{path} 不是一次运行：没有 config.yaml，却有其他文件。请换一个文件夹。",
    ),
    "no_report": (
        "{path} holds no finished run. Finish it with `steelshift fit ... --resume` first.",
        "{path} 中没有已完成的运行。请先用 `steelshift fit ... --resume` 完成它。",
    ),
    "no_inspector": (
        "{path} holds no inspector. Name the folder of a finished run, or an inspector folder.",
        "{path} 中没有检测器。请给出已完成运行的文件夹或检测器文件夹。",
    ),
    "inspector_schema": (
        "The inspector {path} has schema {found}, and this version reads {known}. Use the version that wrote it.",
        "检测器 {path} 的格式版本为 {found}，本版本读取 {known}。请使用写出它的版本。",
    ),
    "inspector_broken": (
        "The inspector {path} is damaged or was changed ({why}). Copy it again from where it was made.",
        "检测器 {path} 已损坏或被改动（{why}）。请从原处重新复制。",
    ),
    "package_missing": (
        "The Python package {package} is not installed. Install it with `pip install 'steelshift[{extra}]'`.",
        "未安装 Python 包 {package}。请用 `pip install 'steelshift[{extra}]'` 安装。",
    ),
    "no_runtime": (
        "{path} is not an exported inspector, so --runtime and --precision mean nothing. Leave them out, or name a "
        "folder that `steelshift export` wrote.",
        "{path} 不是导出的检测器，--runtime 和 --precision 没有意义。请去掉它们，"
        "或给出 `steelshift export` 写入的文件夹。",
    ),
    "not_exported": (
        "{path} holds no graph for {asked}. It holds {known}; choose one of them, or export again.",
        "{path} 中没有 {asked} 的计算图，只有 {known}。请选择其中之一，或重新导出。",
    ),
    "no_bf16": (
        "The runtime {runtime} has no bf16 on this processor; that graph is left out.",
        "运行时 {runtime} 在此处理器上不支持 bf16；略去该计算图。",
    ),
    "no_calibration": (
        "{path} knows no images to calibrate int8 on. Name unlabelled images of the target line with --calibrate.",
        "{path} 中没有可用于 int8 校准的图像。请用 --calibrate 给出目标产线的无标签图像。",
    ),
    "no_graph": (
        "The encoder {encoder} cannot be written as a graph ({why}). Train with another encoder.",
        "编码器 {encoder} 无法写成计算图（{why}）。请换一个编码器训练。",
    ),
    "no_int8": (
        "This network cannot be written in int8 ({why}). Leave int8 out of --precision.",
        "该网络无法写成 int8（{why}）。请在 --precision 中去掉 int8。",
    ),
    "few_to_verify": (
        "Comparing on {n} images; rare differences show only on {enough} or more. Name a folder with --verify.",
        "仅在 {n} 张图像上比较；罕见的差异需 {enough} 张以上才会显现。请用 --verify 给出文件夹。",
    ),
    "parity_failed": (
        "On {n} images these answer otherwise than the inspector and are left out: {failed} (same class, largest "
        "difference, accuracy lost). The others are in {out}.",
        "在 {n} 张图像上，以下与检测器的回答不符，未写入：{failed}"
        "（同类比例、最大差异、准确率损失）。其余在 {out} 中。",
    ),
    "parity_failed_all": (
        "On {n} images these answer otherwise than the inspector, and nothing is written to {out}: {failed} (same "
        "class, largest difference, accuracy lost).",
        "在 {n} 张图像上，以下与检测器的回答不符，{out} 中未写入任何内容：{failed}（同类比例、最大差异、准确率损失）。",
    ),
    "fail_on": (
        "Found what --fail-on names ({found}); {out} says where.",
        "发现了 --fail-on 所指的情况（{found}）；详见 {out}。",
    ),
    "no_reference": (
        "This inspector remembers no images of its line, so --review-rate gives no thresholds. Fit it anew.",
        "该检测器没有保存产线图像的参考，无法由 --review-rate 得出阈值。请重新训练。",
    ),
    "not_torch": (
        "{path} is an exported inspector and runs without torch. Use --runtime onnx or openvino, or the run itself.",
        "{path} 是导出的检测器，不使用 torch。请用 --runtime onnx 或 openvino，或使用原运行文件夹。",
    ),
    "no_match": (
        "No file matches {pattern}. Check the pattern.",
        "没有文件匹配 {pattern}。请检查通配符。",
    ),
    "archive_broken": ("The archive is damaged ({why}).", "归档文件已损坏（{why}）。"),
    "archive_link": (
        "It is a link or a device inside an archive; only files are read.",
        "归档中的链接或设备；只读取普通文件。",
    ),
    "archive_encrypted": ("It is encrypted; store it without a password.", "文件已加密；请不要设置密码。"),
    "archive_entries": (
        "The archive holds more than {most} files; split it.",
        "归档中的文件超过 {most} 个；请拆分。",
    ),
    "archive_expands": (
        "The archive unpacks to more than {times} times its size; what follows in it is not read.",
        "归档解压后超过其大小的 {times} 倍；其后的内容不再读取。",
    ),
    "video_broken": ("The video cannot be read from here on ({why}).", "视频从此处起无法读取（{why}）。"),
    "video_package_missing": (
        "Videos need the package av. Install it with `pip install 'steelshift[video]'`, or give single images.",
        "读取视频需要 av 包。请运行 `pip install 'steelshift[video]'`，或提供单张图像。",
    ),
    "watch_suffix": (
        "{path} cannot be appended to. Use .csv or .jsonl with --watch.",
        "{path} 无法追加。使用 --watch 时请用 .csv 或 .jsonl。",
    ),
    "watch_folders": (
        "--watch follows folders, and {path} is none. Name folders.",
        "--watch 只跟踪文件夹，而 {path} 不是文件夹。请指定文件夹。",
    ),
    "watched_already": (
        "Another process is following a folder into {path}. Stop it, or choose another table.",
        "另一个进程正在向 {path} 写入。请停止它，或换一个表。",
    ),
    "other_table": (
        "{path} is not a table that `inspect` of this version has written. Choose another name.",
        "{path} 不是此版本 `inspect` 写出的表。请换一个名称。",
    ),
    "watching": (
        "Following {where} into {out}; stop with Ctrl+C.",
        "正在跟踪 {where} 并写入 {out}；按 Ctrl+C 停止。",
    ),
    "no_heat_maps": (
        "{path} holds no graph of heat maps: its encoder is of a form that is not known, or it has several tasks. "
        "Inspect with the inspector that it was exported from, or leave out --heatmaps.",
        "{path} 不含热图计算图：其编码器的形式未知，或有多个任务。请用导出前的检测器检测，或去掉 --heatmaps。",
    ),
    "no_heat_graph": (
        "No heat maps can be drawn from the exported {encoder}: its form is not known, or it has several tasks.",
        "导出的 {encoder} 无法绘制热图：其形式未知，或有多个任务。",
    ),
    "output_is_input": (
        "{path} is read here and would be overwritten; name another file for --out.",
        "{path} 是这里要读取的文件，会被覆盖；请为 --out 指定另一个文件。",
    ),
    "output_suffix": (
        "{path} must end in .csv, .jsonl or .parquet.",
        "{path} 必须以 .csv、.jsonl 或 .parquet 结尾。",
    ),
    "row_unreadable": ("the image cannot be read", "图像无法读取"),
    "row_sure": ("probability {p:.3f} is at least {threshold:.3f}", "概率 {p:.3f} 不低于 {threshold:.3f}"),
    "row_strange": (
        "unlike all that was taught: {strange:.3f} is above {threshold:.3f}",
        "与训练过的图像都不相似：{strange:.3f} 高于 {threshold:.3f}",
    ),
    "row_uncertain": ("probability {p:.3f} is below {threshold:.3f}", "概率 {p:.3f} 低于 {threshold:.3f}"),
    "no_target_labels": (
        "No image of {where} has a label among the classes. Judging needs labelled images; "
        "name the classes or folders.",
        "{where} 中没有属于这些类别的标签。评判需要带标签的图像；请指定类别或文件夹。",
    ),
    "other_classes": (
        "The class file {path} names {found}, and the inspector knows {known}. Use the file of the run.",
        "类别文件 {path} 的类别为 {found}，检测器的类别为 {known}。请用该次运行的文件。",
    ),
    "no_test_images": (
        "None of the images in {where} is in the test split of {run}. Name the line that it was taken from (the "
        "target, where there was one), or use --split all.",
        "{where} 中没有 {run} 测试集的图像。请给出其所属产线（若有目标产线则为目标产线），或用 --split all。",
    ),
    "no_declarations": (
        "{run} has no readable data.lock.json, so how its tasks were declared is unknown. Name the folder of a run.",
        "{run} 没有可读的 data.lock.json，无法得知其任务的声明。请给出运行的文件夹。",
    ),
    "run_unreadable": (
        "{run} lacks a readable config.yaml or data.lock.json, so which images trained it is unknown. Fit it anew.",
        "{run} 缺少可读的 config.yaml 或 data.lock.json，无法得知训练所用的图像。请重新训练。",
    ),
    "record_damaged": (
        "{path} is damaged. Put it back as it was, or fit into another folder.",
        "{path} 已损坏。请恢复原文件，或在另一个文件夹中重新训练。",
    ),
    "run_images_gone": (
        "The images of {run} are no longer in {where}. Put them back: they are told by their content.",
        "{run} 的图像已不在 {where} 中。请放回原处：图像按内容识别。",
    ),
    "no_lock": (
        "{run} has no readable data.lock.json, so its test split is unknown. Use --split all.",
        "{run} 没有可读的 data.lock.json，无法得知测试集。请用 --split all。",
    ),
    "judged_better": (
        "Adaptation helped: on {n} labelled target test images mean class accuracy rose from {before:.1%} to "
        "{after:.1%}.",
        "自适应有效：在 {n} 张带标签的目标测试图像上，平均类别准确率从 {before:.1%} 升到 {after:.1%}。",
    ),
    "judged_worse": (
        "Adaptation did harm: on {n} labelled target test images mean class accuracy fell from {before:.1%} to "
        "{after:.1%}. Use source only.",
        "自适应有害：在 {n} 张带标签的目标测试图像上，平均类别准确率从 {before:.1%} 降到 {after:.1%}。请用仅源域模型。",
    ),
    "judged_source": (
        "The inspector of the source line, not adapted: mean class accuracy on {n} labelled target test images is "
        "{after:.1%}.",
        "未自适应的源产线检测器：{n} 张带标签的目标测试图像上，平均类别准确率为 {after:.1%}。",
    ),
    "judged_untold": (
        "Whether adaptation helped cannot be told: mean class accuracy on {n} labelled target test images is "
        "{before:.1%} before and {after:.1%} after, a difference that chance makes as well.",
        "无法判断自适应是否有效：{n} 张带标签的目标测试图像上，平均类别准确率之前 {before:.1%}，之后 {after:.1%}，"
        "这样的差别也可能出于偶然。",
    ),
    "verdict_prefers_source": (
        "Beware: on the target line the source-only inspector answers more surely and more evenly over the classes "
        "than the adapted one, so adaptation may have done harm.",
        "注意：在目标产线上，源域检测器的回答比自适应后的更确定、类别分布更均匀，自适应可能有害。",
    ),
    "verdict_unjudged": (
        "To a fresh classifier the two lines' features differ by {before:.2f} before adaptation and {after:.2f} after "
        "(0 alike, 2 apart); {changed:.0%} of the target test images changed class. Whether that is better, only "
        "labels can tell.",
        "对一个新分类器而言，两条产线的特征差异在自适应前为 {before:.2f}，之后为 {after:.2f}（0 相同，2 完全不同）；"
        "{changed:.0%} 的目标测试图像改变了类别。是否更好，只有标签能说明。",
    ),
    "tiles_none": (
        "{where} gives no tile of {tile} pixels. Choose a smaller --tile.",
        "{where} 切不出 {tile} 像素的小块。请用更小的 --tile。",
    ),
    "tiles_both": (
        "Give --masks or --boxes, not both.",
        "请只给 --masks 或 --boxes 之一。",
    ),
    "boxes_unreadable": (
        "The box file {path} is no Pascal VOC XML ({why}). Correct or remove it.",
        "标注框文件 {path} 不是 Pascal VOC XML（{why}）。请改正或删除。",
    ),
    "mask_unusable": (
        "The mask {path} cannot be used ({why}). Correct or remove it.",
        "掩膜 {path} 无法使用（{why}）。请改正或删除。",
    ),
    "mask_size": ("its size is {mask}, that of the image {image}", "其尺寸为 {mask}，图像为 {image}"),
    "check_unreadable": ("Unreadable on the {line} line: {path}: {why}", "{line} 产线无法读取：{path}：{why}"),
    "check_more": ("and {count} more on the {line} line.", "{line} 产线另有 {count} 个。"),
    "check_duplicates": (
        "{count} pictures occur more than once on the {line} line; copies are kept on one side of every split.",
        "{line} 产线有 {count} 张图像重复出现；划分时副本总在同一侧。",
    ),
    "check_two_classes": (
        "The same picture has two classes on the {line} line: {paths}. Keep the right one.",
        "{line} 产线上同一图像属于两个类别：{paths}。请保留正确的一个。",
    ),
    "check_unknown_class": (
        "The folder {folder} of the {line} line is no class of the source line; its {count} images may be a defect "
        "that the inspector cannot name.",
        "{line} 产线的文件夹 {folder} 不是源产线的类别；其 {count} 张图像可能是检测器无法命名的缺陷。",
    ),
    "check_saturated": (
        "{count} images of the {line} line are black or white in more than {share:.0%} of their pixels.",
        "{line} 产线有 {count} 张图像超过 {share:.0%} 的像素全黑或全白。",
    ),
    "check_absent": ("The class {name} has no image on the {line} line.", "{line} 产线没有类别 {name} 的图像。"),
    "check_rare": (
        "The class {name} has {count} of {total} images on the {line} line.",
        "类别 {name} 在 {line} 产线仅有 {count}/{total} 张图像。",
    ),
    "check_across": (
        "{count} pictures occur on both lines; a score on them says nothing about the target line.",
        "有 {count} 张图像同时出现在两条产线；在其上的得分不能说明目标产线。",
    ),
    "unknown_command": (
        "There is no command {name}. The commands are {known}.",
        "没有命令 {name}。可用的命令有 {known}。",
    ),
    "other_data": (
        "The images or classes of {path} are no longer those it began with. Put them back, or begin another run.",
        "{path} 的图像或类别与开始时不同。请恢复原样，或另开一次运行。",
    ),
    "some_test_images": (
        "Only {found} of the {wanted} test images of {run} were found.",
        "{run} 的 {wanted} 张测试图像中只找到 {found} 张。",
    ),
    "stopped_anew": (
        "Stopped. Run the same command again; what it wrote before this is whole.",
        "已停止。请重新运行同一命令；此前写出的内容是完整的。",
    ),
    "stopped": (
        "Stopped. What was finished is kept; continue with the same command and --resume.",
        "已停止。已完成的部分保留；用同一命令加 --resume 继续。",
    ),
    "pair_kind": (
        "The pair {name} needs one of: synthetic; photographed; source and target. Give exactly one of them.",
        "产线对 {name} 需要以下之一：synthetic；photographed；source 与 target。请恰好给出一种。",
    ),
    "pair_masks": (
        "The pair {name} has masks and no tile: masks label tiles. Give `tile` too, or leave `masks` out.",
        "产线对 {name} 有 masks 而没有 tile：掩膜用于给切块打标签。请同时给出 `tile`，或去掉 `masks`。",
    ),
    "pair_class": (
        "A pair cannot leave out the class {name}: the line has {known}. Correct `absent` or `unknown` in the suite.",
        "产线对无法去掉类别 {name}：该产线有 {known}。请更正套件中的 absent 或 unknown。",
    ),
    "suite_lacks": (
        "The suite {path} has no usable {key}. Write seeds as a list of different whole numbers; pairs, methods and "
        "each of them as maps.",
        "套件 {path} 缺少可用的 {key}。seeds 写成互不相同的整数列表；pairs、methods 及其各项写成映射。",
    ),
    "suite_name": (
        "{path} has the name {name!r}, which cannot name a folder. Keep it short, without slashes or a leading dot.",
        "{path} 中的名称 {name!r} 不能作文件夹名。请去掉斜杠和开头的点，并保持简短。",
    ),
    "suite_gives": (
        "{path} sets {key} for {name}, which the suite gives to each run itself. Remove it there.",
        "{path} 为 {name} 设置了 {key}，而它由套件自行给出。请删除它。",
    ),
    "suite_variable": (
        "{value} names an environment variable that is not set. Set it, or write the path.",
        "{value} 中的环境变量未设置。请设置它，或直接写路径。",
    ),
    "not_a_bench": (
        "{path} holds other files and no bench.json of a suite. Choose another folder.",
        "{path} 中有其他文件，却没有套件的 bench.json。请换一个文件夹。",
    ),
    "bench_busy": (
        "Another process is running a suite in {path}. Wait for it, or choose another folder.",
        "另一个进程正在 {path} 中运行套件。请等待，或换一个文件夹。",
    ),
    "other_threads": (
        "{path} was begun with {before} threads a process and would continue with {now}, which changes sums. Choose "
        "--jobs as before, or another folder.",
        "{path} 以每进程 {before} 个线程开始，现在将用 {now} 个，这会改变求和结果。"
        "请使用原来的 --jobs，或换一个文件夹。",
    ),
    "bench_killed": ("The process was ended by {signal}.", "该进程被 {signal} 终止。"),
    "bench_failed": (
        "Runs of {units} failed: {why} See {log}; what is finished stays. Mend it, then continue with --resume.",
        "{units} 的运行失败：{why} 请查看 {log}；已完成的部分会保留。修正后用 --resume 继续。",
    ),
    "no_estimate": (
        "There is no {path}. Name the folder of a finished run; runs of earlier versions do not have it.",
        "没有 {path}。请给出已完成运行的文件夹；早期版本的运行没有此文件。",
    ),
    "estimate_broken": (
        "{path} is damaged or was changed ({why}). Copy it again from where the run was made.",
        "{path} 已损坏或被改动（{why}）。请从运行所在处重新复制。",
    ),
    "estimate_few_images": (
        "There are fewer than {least} held-out images of one of the lines, too few to say anything.",
        "其中一条产线留出的图像少于 {least} 张，不足以下结论。",
    ),
    "estimate_fine": (
        "The estimates agree within {spread:.0%}, and nothing that was looked for speaks against them; a classifier "
        "tells the lines' features apart with an area of {apart:.2f} under its ROC curve.",
        "各估计相差不超过 {spread:.0%}，所检查的各项均无异议；区分两条产线特征的分类器 ROC 曲线下面积为 {apart:.2f}。",
    ),
    "estimate_unknown_classes": (
        "{share:.0%} of the target images lie farther from all source images than nearly any source image does, as a "
        "defect that the source line does not have would",
        "{share:.0%} 的目标图像与所有源图像的距离比几乎任何源图像都远，可能存在源产线没有的缺陷",
    ),
    "estimate_lines_apart": (
        "a classifier tells the two lines' features apart with an area of {area:.2f} under its ROC curve (0.5 alike, 1 "
        "apart)",
        "分类器能区分两条产线的特征，ROC 曲线下面积为 {area:.2f}（0.5 相同，1 完全不同）",
    ),
    "estimate_class_mix": (
        "the mix of classes seems to differ between the lines by {share:.0%}",
        "两条产线的类别比例似乎相差 {share:.0%}",
    ),
    "estimate_estimates_differ": (
        "estimates made in different ways differ by {spread:.0%}",
        "不同方法的估计相差 {spread:.0%}",
    ),
    "estimate_bound": (
        "No single number can be trusted, for {risk}; the lower bound asks for less.",
        "无法信任单一数值，因为{risk}；下界的要求较低。",
    ),
    "estimate_open": (
        "Neither a number nor a bound can be trusted, for {risk}. Look at such images, label some and use --labels.",
        "数值和下界都无法信任，因为{risk}。请查看这些图像，标注一些并使用 --labels。",
    ),
    "estimate_refused": (
        "No single number can be trusted, for {risk}; and the lower bound, {bound:.0%}, is too low to help. Label some "
        "images and use --labels.",
        "无法信任单一数值，因为{risk}；下界 {bound:.0%} 又太低，没有帮助。请标注一些图像并使用 --labels。",
    ),
    "labels_no_match": (
        "{path} labels none of the {count} target test images of {run} with a known class. `steelshift estimate {run} "
        "--to-label FILE` lists images to label.",
        "{path} 没有用已知类别标注 {run} 的 {count} 张目标测试图像中的任何一张。"
        "`steelshift estimate {run} --to-label FILE` 可列出待标注图像。",
    ),
    "answers_unseen": (
        "No label is of an image that the inspector calls {answers}, {share:.0%} of the test images; the interval "
        "takes these to be right as often as the others. Label some of them, e.g. of a list that --to-label draws.",
        "没有任何标签属于检测器判为 {answers} 的图像（占测试图像的 {share:.0%}）；区间假定它们与其他图像同样准确。"
        "请也标注其中一些，例如用 --to-label 抽取。",
    ),
    "labels_of_no_class": (
        "{path} has labels that are no class here: {labels}. Classes are {known}.",
        "{path} 中有不属于任何类别的标签：{labels}。类别有 {known}。",
    ),
    "labels_elsewhere": (
        "{count} labelled images are not among the target test images of {run} and do not count.",
        "有 {count} 张带标签的图像不在 {run} 的目标测试集中，不计入。",
    ),
    "labels_twice": (
        "{path} gives the image {id} two classes. Keep the right one.",
        "{path} 给图像 {id} 两个类别。请保留正确的一个。",
    ),
    "labels_columns": (
        "{path} is no CSV file in UTF-8 with a column `label` and a column `path` or `id` ({why}).",
        "{path} 不是带有 label 列以及 path 或 id 列的 UTF-8 CSV 文件（{why}）。",
    ),
    "estimate_measured": (
        "{n} labels, {unknown} of them of no class of the run and so answered wrongly: accuracy {accuracy:.1%}, 95 % "
        "interval {low:.1%} to {high:.1%}. {more} more, drawn evenly, reach plus or minus {points:g} points; {left} "
        "test images are without a label.",
        "{n} 个标签，其中 {unknown} 个不属于本次运行的任何类别，必然答错：准确率 {accuracy:.1%}，95 % 区间 {low:.1%} "
        "到 {high:.1%}。再随机标注 {more} 个可达到正负 {points:g} 个百分点；尚有 {left} 张测试图像没有标签。",
    ),
    "to_label_exists": (
        "{path} exists and may hold labels. Name a new file.",
        "{path} 已存在，可能含有标签。请换一个新文件名。",
    ),
    "to_label_written": (
        "{count} images to label are listed in {path}: fill in the column label, then `steelshift estimate {run} "
        "--labels {labels}`.",
        "{path} 中列出了 {count} 张待标注图像：请填写 label 列，然后运行 "
        "`steelshift estimate {run} --labels {labels}`。",
    ),
    "to_label_fewer": (
        "All {count} test images that are without a label are listed in {path}, where {wanted} would be wanted: fill "
        "in the column label, then `steelshift estimate {run} --labels {labels}`.",
        "{path} 中列出了全部 {count} 张没有标签的测试图像（需要 {wanted} 张）：请填写 label 列，然后运行 "
        "`steelshift estimate {run} --labels {labels}`。",
    ),
    "to_label_none": (
        "No more labels are wanted for plus or minus {points:g} points, or no test image is without one: {path} is not "
        "written.",
        "达到正负 {points:g} 个百分点无需更多标签，或所有测试图像都已有标签：未写入 {path}。",
    ),
    "estimate_to_label": (
        "{count} labels of target images that were not trained on, drawn evenly, would settle it within plus or minus "
        "{points:g} points.",
        "随机标注 {count} 张未用于训练的目标图像即可确定到正负 {points:g} 个百分点。",
    ),
    "no_validators": (
        "{path} has no validators.csv. Name the folder that `steelshift bench` wrote, or a table that it lies beside.",
        "{path} 没有 validators.csv。请给出 `steelshift bench` 写入的文件夹，或旁边保存着它的表格。",
    ),
    "sheet_damaged": (
        "Row {row} of {path} is damaged. Put the file back as it was, or have `steelshift bench --resume` write it.",
        "{path} 的第 {row} 行已损坏。请恢复原文件，或用 `steelshift bench --resume` 重新写出。",
    ),
    "sheet_twice": (
        "Row {row} of {path} is there before, with the same pair, method and seed. Remove one of the two.",
        "{path} 的第 {row} 行与前面某行的产线对、方法和种子相同。请删除其中一行。",
    ),
    "sheet_mixed": (
        "{path} holds rows of {pair}, seed {seed}, made of different images. Keep those of one state, or run it anew.",
        "{path} 中 {pair}、种子 {seed} 的各行来自不同的图像。请只保留同一状态的行，或重新运行套件。",
    ),
    "no_results": (
        "{path} holds no results.csv. Name the folder that `steelshift bench` wrote, or its results.csv.",
        "{path} 中没有 results.csv。请给出 `steelshift bench` 写入的文件夹，或其中的 results.csv。",
    ),
    "not_compared": (
        "{name} is no method that has scores in half of the cells or more. Name one of {known}.",
        "{name} 不是在至少一半单元中有分数的方法。请给出 {known} 之一。",
    ),
    "too_few_to_rank": (
        "Mean ranks need {least_methods} methods with {least_cells} pairs x seeds in common; there are {methods} with "
        "{cells}. Run more seeds, pairs or methods.",
        "平均秩需要至少 {least_methods} 种方法共有 {least_cells} 个“产线对 x 种子”单元；现有 {methods} 种方法、"
        "{cells} 个单元。请运行更多种子、产线对或方法。",
    ),
    "picture_format": (
        "{path} names no picture that can be drawn. End its name in .png or .svg.",
        "{path} 不是可绘制的图片名。请以 .png 或 .svg 结尾。",
    ),
    "no_letters": (
        "No font on this machine has the letters {letters} for {path}. Write .svg instead, which takes the reader's "
        "fonts, or install a font.",
        "本机没有字体包含 {path} 所需的字符 {letters}。请改写 .svg（使用读者的字体），或安装字体。",
    ),
    "bench_compared": (
        "Over all pairs: {cells} of {possible} cells (pairs x seeds), those that all {methods} methods have, of "
        "{pairs} pairs; scores are means of the pairs' means, rank is the mean rank of selected in these cells. p is "
        "of Wilcoxon's two-sided signed-rank test over the cells with Holm's correction; p gain: selected against "
        "source_only of the same run ({p_gain} tests); p difference: selected against {reference} ({p_difference} "
        "tests). A dash: not tested, for fewer than 6 cells or no difference at all. The seeds of a pair share its "
        "images: the tests speak of these pairs, not of pairs to come.",
        "全部产线对：{possible} 个单元（产线对 x 种子）中的 {cells} 个，即 {methods} 种方法共有的单元，"
        "来自 {pairs} 个产线对；分数为各产线对均值的均值，rank 为这些单元中 selected 的平均秩。"
        "p 为对这些单元的双侧 Wilcoxon 符号秩检验并经 Holm 校正；"
        "p gain：selected 与同一运行的 source_only 相比（{p_gain} 次检验）；"
        "p difference：selected 与 {reference} 相比（{p_difference} 次检验）。"
        "短横线表示未检验：不足 6 个单元，或毫无差异。"
        "同一产线对的种子共用图像：检验只说明这些产线对，不说明将来的产线对。",
    ),
    "bench_best": (
        "{reference} is the method of the highest mean, chosen on these very cells, which flatters it.",
        "{reference} 是均值最高的方法，而它正是按这些单元选出的，因此结果对它偏有利。",
    ),
    "bench_ranks": (
        "Friedman's test (Iman and Davenport): p {p}; Nemenyi's critical difference of mean ranks at 5 %: {width}.",
        "Friedman 检验（Iman 与 Davenport）：p {p}；5 % 水平下平均秩的 Nemenyi 临界差：{width}。",
    ),
    "bench_left_out": (
        "Not compared, with scores in fewer than half of the cells: {names}.",
        "未比较，因有分数的单元不足一半：{names}。",
    ),
    "bench_no_cells": (
        "Over all pairs nothing is compared: of {possible} cells (pairs x seeds) there is none that all methods have.",
        "未作全部产线对的比较：{possible} 个单元（产线对 x 种子）中没有所有方法共有的。",
    ),
    "bench_made": (
        "{rows} rows: {facts}.",
        "{rows} 行：{facts}。",
    ),
    "cannot_listen": (
        "Cannot listen on {host} port {port} ({why}). Choose another --host or --port.",
        "无法在 {host} 端口 {port} 上监听（{why}）。请换 --host 或 --port。",
    ),
    "worker_ended": (
        "The process that holds the inspector {path} ended. The lines above say why; there may be too little memory.",
        "持有检测器 {path} 的进程已终止。原因见上面的日志；可能是内存不足。",
    ),
    "serve_open": (
        "Anybody who reaches {host} can use this inspector. Give a --token-file, or keep to --host 127.0.0.1.",
        "任何能访问 {host} 的人都可以使用这个检测器。请给出 --token-file，或只用 --host 127.0.0.1。",
    ),
    "token_unreadable": (
        "The token file {path} cannot be used ({why}). Write one line of 8 or more ASCII characters without spaces.",
        "无法使用令牌文件 {path}（{why}）。请写一行不少于 8 个、不含空格的 ASCII 字符。",
    ),
    "http_token": (
        "This needs the token of the server, as `Authorization: Bearer TOKEN`.",
        "需要服务器的令牌：`Authorization: Bearer TOKEN`。",
    ),
    "http_no_such_place": (
        "There is nothing at this address; /openapi.json lists what there is.",
        "此地址没有内容；/openapi.json 列出所有地址。",
    ),
    "http_method": (
        "This address does not take {method}; use {allowed}.",
        "此地址不接受 {method}；请用 {allowed}。",
    ),
    "http_too_large": (
        "The body has more than the {limit} bytes allowed. Send fewer or smaller images.",
        "请求体超过上限 {limit} 字节。请减少或缩小图像。",
    ),
    "http_media_type": (
        "The content type {found} is not taken here; send {known}.",
        "此处不接受内容类型 {found}；请发送 {known}。",
    ),
    "http_form": (
        "The form cannot be read ({why}). Send multipart/form-data with images as files.",
        "无法读取表单（{why}）。请以 multipart/form-data 发送图像文件。",
    ),
    "http_images": (
        "The form holds {count} files; send {wanted}.",
        "表单中有 {count} 个文件；请发送 {wanted} 个。",
    ),
    "http_option": (
        "The request has a wrong value: {what}.",
        "请求中有错误的值：{what}。",
    ),
    "http_full": (
        "More images are waiting than the server can take. Try again in {seconds} s.",
        "等待处理的图像过多，服务器无法再接收。请在 {seconds} 秒后重试。",
    ),
    "http_not_ready": (
        "The inspector is not ready. Try again in {seconds} s.",
        "检测器尚未就绪。请在 {seconds} 秒后重试。",
    ),
    "http_too_late": (
        "There was no answer within {seconds} s.",
        "{seconds} 秒内没有得到结果。",
    ),
    "http_slow_body": (
        "The body did not arrive within {seconds} s.",
        "请求体未在 {seconds} 秒内到达。",
    ),
    "http_head": (
        "The request line and headers are no HTTP/1.1, longer than {limit} bytes, or came slower than {seconds} s.",
        "请求行和请求头不是 HTTP/1.1、超过 {limit} 字节，或未在 {seconds} 秒内到达。",
    ),
    "http_connections": (
        "More connections are open than the {limit} allowed. Try again later.",
        "打开的连接超过上限 {limit}。请稍后重试。",
    ),
    "http_ended_worker": (
        "Looking at this image ended the process that does it, twice. It is not tried again.",
        "处理此图像时，负责处理的进程两次终止。不再重试。",
    ),
    "http_failed": (
        "The server failed; its log says why, under this request's id.",
        "服务器出错；原因见日志中此请求编号下的记录。",
    ),
}


def language() -> str:
    """`zh` when what `speak` set, STEELSHIFT_LANG, LC_ALL, LC_MESSAGES or LANG, in this order, names Chinese.

    Otherwise `en`.
    """
    spoken = _SPOKEN.get()
    if spoken is not None:
        return spoken
    for name in ("STEELSHIFT_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name)
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


def speak(chosen: str | None) -> None:
    """Say everything in `en` or `zh` from now on, in this task or thread alone; None goes by the environment."""
    _SPOKEN.set(chosen)


def say(key: str, /, **fields: object) -> str:
    """The sentence `key` in the user's language with `fields` filled in."""
    english, chinese = _CATALOGUE[key]
    if language() != "zh":
        return english.format(**fields)
    return chinese.format(**{name: _in_chinese(value) if name in _WORDED else value for name, value in fields.items()})


_WORDED = ("range", "wanted")
"""Fields that say what is allowed, in English words about numbers and names."""
_PHRASES = (
    (r"between (\S+) and (\S+)", r"介于 \1 与 \2 之间"), (r"(\S+) or more", r"至少 \1"), (r"at least", "至少"),
    (r"at most|up to", "至多"), (r"above", "大于"), (r"below", "小于"), (r"(?<=\d) to (?=\S)", " 到 "),
    ("never rising", "不递增"), ("the lower first", "小者在前"), ("the last", "最后一个"),
    ("where an aggregator weighs the tasks", "因为任务由聚合器加权"), ("a map of keys", "键值映射"),
    (r",? or ", " 或 "), (" and ", " 且 "), (", ", "，"),
)  # fmt: skip


def _in_chinese(words: object) -> str:
    found = str(words)
    for english, chinese in _PHRASES:
        found = re.sub(english, chinese, found)
    return found
