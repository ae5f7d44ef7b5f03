"""What a study says, in English and Chinese: verdicts, headings, captions, remarks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..pages.texts import Texts
from .statistics import BETTER, MOST_SEEDS, PAIRED, POOLED, SAME, UNTOLD, WORSE

__all__ = ["TEXTS", "Words"]

TEXTS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "colon": ": ", "comma": ", ", "stop": ". ", "semicolon": "; ",
        "over_seeds": "{metric} {difference} ({low} to {high} over {n} seeds), p = {p}, after Holm {holm} ({method})",
        "only": "{metric} {difference}",
        "no_seeds": "no number of seeds would tell no difference",
        "too_many": f"more than {MOST_SEEDS} seeds would be needed to tell it",
        "needed": "about {n} seeds would tell it",
        "over_images": "Over images, seed {seed} alone: {low} to {high}",
        "title": "Does attention help here?",
        "title_runs": "Trainings side by side",
        "summary": "Verdict",
        "beside": "Each config beside {baseline}, by {metric}.",
        "measured": "Measured on '{split}', {images} images, with the weights of the epoch that was best on 'val'.",
        "measured_logs": "{metric} and mAP50 are those that each training measured itself on 'val', at its best epoch.",
        "intervals": (
            "Intervals are 95 %, of each config alone; Holm's correction is over all configs, at 5 % together. The interval "
            "over images says how far one pair of trainings depends on the choice of images; {coverage}"
        ),
        "coverage": "in simulations of 30 to 150 images it covers 94 to 96 %.",
        "table": "Table", "configs": "Configs", "all_runs": "All runs", "remarks": "Remarks", "conditions": "Conditions",
        "figures": "Figures", "classes": "Classes",
        "config": "config", "runs": "runs", "module": "module", "place": "place", "start": "start", "small": "small",
        "medium": "medium", "large": "large", "parameters": "parameters", "params": "params", "gflops": "GFLOPs", "latency": "latency ratio",
        "latency_ms": "latency (ms)", "minutes": "minutes", "difference": "difference", "interval": "95 % over seeds",
        "holm": "p (Holm)", "verdict": "verdict", "seeds_to_tell": "seeds to tell", "images_interval": "95 % over images",
        "precision": "precision", "recall": "recall", "run": "run", "seed": "seed", "status": "status", "reason": "reason",
        "epoch": "epoch", "finished": "finished", "failed": "failed",
        "val_curve": "{metric} on val", "train_loss": "training loss", "difference_of": "difference of {metric} to {baseline}",
        "parameters_m": "parameters (millions)", "latency_axis": "ONNX latency, relative to {baseline}",
        "fig_training": "Training: mean over seeds, and the band from the lowest to the highest.",
        "fig_training_one": "Training.",
        "fig_pr": "Precision and recall at IoU 0.5, mean over classes and seeds.",
        "fig_parameters": "{metric} against parameters: mean over seeds, bars are one standard deviation.",
        "fig_latency": (
            "{metric} against the ratio of ONNX latency, one thread of the CPU, {imgsz} px: bars are one standard deviation "
            "over seeds, and the 95 % interval of the median over interleaved rounds."
        ),
        "fig_classes": "Difference of {metric} of each class to {baseline}: mean over seeds, bars are one standard deviation.",
        "fig_classes_some": "{shown} of {all} classes: those that differ most.",
        "host": "host", "data": "data", "weights": "weights", "epochs": "epochs", "imgsz": "image side (px)", "seeds": "seeds",
        "embedded": "the embedded data set", "unnamed": "data sets that differ or are not named", "scratch": "from scratch", "latency_how": "ONNX latency",
        "latency_said": "onnxruntime, one image, one thread of the CPU, all configs in turns; milliseconds: median and half the interquartile range; ratio: median over rounds of the time divided by the baseline's, with its 95 % interval",
        "tex_caption": "Ablation on {data}: mean and standard deviation over {seeds} seeds.",
        "tex_caption_one": "Ablation on {data}, one seed.", "up_to": "{low} to {high}",
        "tex_best": "Best in bold.", "tex_same": "not distinguishable from the baseline (p $\\geq$ 0.05 after Holm's correction)",
        "tex_untold": "cannot be told",
        "missing_runs": "{n} of {all} runs have not finished: {names}.",
        "failed_run": "{run} failed: {reason}",
        "no_latency": "latency of {config} could not be measured: {reason}",
        "duplicates": "{names}: equal to the last digit of their logs, counted once.",
        "repeats": "{names}: the same config and seed, other figures: counted as repetitions.",
        "unequal": "not trained alike, and a difference may come from that: {values}.",
        "no_best": "{run}: has no best.pt: parameters, sizes, classes and curves of it are left blank.",
        "last_for_best": "{run}: has no best.pt; last.pt was measured in its place.",
        "no_log": "{run}: has no results.csv: there is no curve of its training.",
        "short_log": "{run}: its log ends at epoch {n} of {all}: it stopped early, or has not finished.",
        "damaged_log": "{run}: {n} lines of results.csv are cut short or damaged, and were skipped.",
        "left_out": "{run}: left out: {reason}",
        "no_options": "{run}: has neither args.yaml nor opt.yaml that says its model: its settings and its seed are not known.",
        "no_seed": "{run}: says no seed; counted as 0.",
        "not_opened": "{run}: {file} cannot be opened, and what only it can tell is left blank: {reason}",
        "no_validation": "{run}: could not be validated again: {reason}",
        "no_data": "{run}: could not be validated again: its data set {data} is not on this machine (--data names another).",
        "validated": "validated again by one evaluator for all: {n} runs.",
        "not_validated": (
            "{metric} and mAP50 are taken from the logs, at the epoch where 0.1 mAP50 + 0.9 mAP50-95 is highest, as not every run could be validated again; what "
            "hosts measure themselves differs a little from one another and from COCO's evaluator."
        ),
    },
    "zh": {
        "colon": "：", "comma": "，", "stop": "。", "semicolon": "；",
        "over_seeds": "{metric} {difference}（{n} 个随机种子上 {low} 至 {high}），p = {p}，Holm 校正后 {holm}（{method}）",
        "only": "{metric} {difference}",
        "no_seeds": "差异为零，增加种子数也无法区分",
        "too_many": f"需要 {MOST_SEEDS} 个以上的种子才能区分",
        "needed": "约需 {n} 个种子才能区分",
        "over_images": "仅种子 {seed}，对图像重采样：{low} 至 {high}",
        "title": "注意力在这里有用吗？",
        "title_runs": "训练结果对比",
        "summary": "结论",
        "beside": "各配置与 {baseline} 相比，指标为 {metric}。",
        "measured": "在“{split}”的 {images} 张图像上评测，权重取自“val”上最佳的轮次。",
        "measured_logs": "{metric} 与 mAP50 为各次训练自身在“val”上最佳轮次的评测值。",
        "intervals": (
            "区间均为 95 %，针对单个配置；Holm 校正覆盖全部配置，总体水平 5 %。图像区间表示单次训练的对比在多大程度上取决于所选图像；{coverage}"
        ),
        "coverage": "在 30 至 150 张图像的模拟中，其覆盖率为 94 至 96 %。",
        "table": "表格", "configs": "配置", "all_runs": "全部训练", "remarks": "说明", "conditions": "条件",
        "figures": "图", "classes": "类别",
        "config": "配置", "runs": "训练次数", "module": "模块", "place": "位置", "start": "初始化", "small": "小目标",
        "medium": "中目标", "large": "大目标", "parameters": "参数量", "params": "参数量", "gflops": "GFLOPs", "latency": "延迟比",
        "latency_ms": "延迟（ms）", "minutes": "分钟", "difference": "差异", "interval": "种子 95 % 区间",
        "holm": "p（Holm）", "verdict": "结论", "seeds_to_tell": "区分所需种子数", "images_interval": "图像 95 % 区间",
        "precision": "精确率", "recall": "召回率", "run": "训练", "seed": "种子", "status": "状态", "reason": "原因",
        "epoch": "轮次", "finished": "完成", "failed": "失败",
        "val_curve": "val 上的 {metric}", "train_loss": "训练损失", "difference_of": "{metric} 与 {baseline} 之差",
        "parameters_m": "参数量（百万）", "latency_axis": "ONNX 延迟（相对于 {baseline}）",
        "fig_training": "训练过程：种子间的均值，色带为最低至最高。",
        "fig_training_one": "训练过程。",
        "fig_pr": "IoU 0.5 下的精确率与召回率，对类别与种子取均值。",
        "fig_parameters": "{metric} 与参数量：种子间的均值，误差线为一个标准差。",
        "fig_latency": (
            "{metric} 与 ONNX 延迟之比（CPU 单线程，{imgsz} 像素）：误差线为种子间的一个标准差，以及交错计时各轮中位数的 95 % 区间。"
        ),
        "fig_classes": "各类别 {metric} 与 {baseline} 之差：种子间的均值，误差线为一个标准差。",
        "fig_classes_some": "{all} 个类别中差异最大的 {shown} 个。",
        "host": "宿主", "data": "数据", "weights": "权重", "epochs": "轮数", "imgsz": "图像边长（像素）", "seeds": "种子数",
        "embedded": "内置数据集", "unnamed": "不一致或未注明的数据集", "scratch": "从头训练", "latency_how": "ONNX 延迟",
        "latency_said": "onnxruntime，单张图像，CPU 单线程，各配置交错计时；毫秒：中位数与四分位距的一半；比值：各轮与基线之比的中位数及其 95 % 区间",
        "tex_caption": "{data}上的消融实验：{seeds} 个种子的均值与标准差。",
        "tex_caption_one": "{data}上的消融实验（一个种子）。", "up_to": "{low} 至 {high}",
        "tex_best": "最优值加粗。", "tex_same": "与基线不可区分（Holm 校正后 p $\\geq$ 0.05）",
        "tex_untold": "无法判断",
        "missing_runs": "{all} 次训练中有 {n} 次尚未完成：{names}。",
        "failed_run": "{run} 失败：{reason}",
        "no_latency": "无法测量 {config} 的延迟：{reason}",
        "duplicates": "{names}：日志完全相同，只计一次。",
        "repeats": "{names}：配置与种子相同而结果不同，按重复训练计。",
        "unequal": "训练条件不同，差异可能由此产生：{values}。",
        "no_best": "{run}：没有 best.pt，其参数量、各尺寸与各类别的值及曲线留空。",
        "last_for_best": "{run}：没有 best.pt，改为评测 last.pt。",
        "no_log": "{run}：没有 results.csv，因此没有训练曲线。",
        "short_log": "{run}：日志止于第 {n} 轮（共 {all} 轮）：提前停止或尚未完成。",
        "damaged_log": "{run}：results.csv 中有 {n} 行不完整或已损坏，已跳过。",
        "left_out": "{run}：未计入：{reason}",
        "no_options": "{run}：没有注明模型的 args.yaml 或 opt.yaml，其设置与种子未知。",
        "no_seed": "{run}：未注明种子，按 0 计。",
        "not_opened": "{run}：无法打开 {file}，只能由它得知的内容留空：{reason}",
        "no_validation": "{run}：无法重新评测：{reason}",
        "no_data": "{run}：无法重新评测：本机没有其数据集 {data}（可用 --data 指定）。",
        "validated": "已用同一评测器重新评测：{n} 次训练。",
        "not_validated": (
            "并非所有训练都能重新评测，因此 {metric} 与 mAP50 取自日志中 0.1 mAP50 + 0.9 mAP50-95 最高的轮次；各宿主自身的评测值彼此之间、与 COCO 评测器之间略有差别。"
        ),
    },
}  # fmt: skip
# What statistics say in one language is said in another here.
SAID = {
    BETTER: "更好", WORSE: "更差", SAME: "不可区分", UNTOLD: "无法判断", POOLED: "合并残差", PAIRED: "配对 t 检验",
    "neither has learned to detect anything; train for more epochs": "两者都未学会检测，请增加训练轮数",
    "no seed of it and of the baseline has finished": "它与基线没有共同完成的种子",
    "one seed has no spread; two are the least, three the least that is of use": "一个种子没有离散度；至少需要两个，三个起才有意义",
    "the difference is the same for every seed: do seeds reach this training?": "每个种子的差异都相同：种子是否传到了训练？",
    "backbone": "骨干", "neck": "颈部", "head": "检测头", "inside": "块内", "identity": "恒等", "paper": "论文",
}  # fmt: skip


class Words(Texts):
    """The texts of a language, and sentences put together of them."""

    def __init__(self, language: str = "en") -> None:
        super().__init__(TEXTS, language)

    def said(self, text: str) -> str:
        """Return what statistics or placements say in this language."""
        return SAID.get(text, text) if self.language == "zh" else text

    @property
    def characters(self) -> str:
        """Every character that occurs."""
        return super().characters + ("".join(SAID.values()) if self.language == "zh" else "")

    def verdict(self, row: Mapping[str, Any], metric: str = "mAP50-95") -> str:
        """Return the verdict on one row of :func:`yolo_attn.study.verdict.judged`."""
        text = self.said(str(row["verdict"]))
        why = self.said(str(row["why"]))
        if row["difference"] is None:
            return f"{text}{self('colon')}{why}"
        difference = f"{row['difference']:+.3f}"
        if row["verdict"] == UNTOLD:
            text += self("comma") + self("only", metric=metric, difference=difference) + self("colon") + why
        else:
            text += self("comma") + self(
                "over_seeds", metric=metric, difference=difference, low=f"{row['low']:+.3f}", high=f"{row['high']:+.3f}",
                n=row["seeds"], p=f"{row['p']:.3g}", holm=f"{row['holm']:.3g}", method=self.said(row["method"]),
            )  # fmt: skip
            if row["verdict"] == SAME:
                text += self("semicolon") + self._needed(row)
        if row["images_low"] is not None:
            low, high = f"{row['images_low']:+.3f}", f"{row['images_high']:+.3f}"
            text += self("stop") + self("over_images", seed=row["images_seed"], low=low, high=high)
        return text

    def _needed(self, row: Mapping[str, Any]) -> str:
        if row["difference"] == 0:
            return self("no_seeds")
        return self("too_many") if row["seeds_to_tell"] is None else self("needed", n=row["seeds_to_tell"])
