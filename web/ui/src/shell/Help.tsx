import { Modal } from "@mantine/core";
import { Kbd } from "../parts/Button";
import { useKeyGroups } from "./keys";
import { closeOverlay } from "./overlays";

/** The keys that work now. */
export default function Help() {
  const groups = useKeyGroups();
  const names = [...new Set(groups.map((g) => g.name))].sort(
    (a, b) => Number(a === "Everywhere") - Number(b === "Everywhere"),
  );
  return (
    <Modal opened onClose={closeOverlay} title="Keys" size={640}>
      <div className="cd-help">
        {names.map((name) => (
          <section key={name}>
            <h3 className="cd-cap">{name}</h3>
            <dl>
              {groups
                .filter((g) => g.name === name)
                .flatMap((g) => g.keys)
                .filter((k) => k.label)
                .map((k) => (
                  <div key={k.keys}>
                    <dt>{k.label}</dt>
                    <dd>
                      {[k.keys, ...(k.also ?? [])].map((combo) => (
                        <span key={combo} className="cd-row">
                          {combo.split(" ").map((part, i) => (
                            <Kbd key={i}>
                              {part
                                .replace("mod+k", "Ctrl K")
                                .replace("Enter", "↵")
                                .replace("Escape", "Esc")
                                .replace("ArrowDown", "↓")
                                .replace("ArrowUp", "↑")}
                            </Kbd>
                          ))}
                        </span>
                      ))}
                    </dd>
                  </div>
                ))}
            </dl>
          </section>
        ))}
      </div>
    </Modal>
  );
}
