import { Menu, useMantineColorScheme } from "@mantine/core";
import { IconCheck } from "@tabler/icons-react";

const schemes = [
  { value: "auto", label: "Theme of the system" },
  { value: "dark", label: "Dark theme" },
  { value: "light", label: "Light theme" },
] as const;

/** The choice of theme, as entries of a menu. */
export function SchemeItems() {
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  return schemes.map((s) => (
    <Menu.Item
      key={s.value}
      onClick={() => setColorScheme(s.value)}
      rightSection={colorScheme === s.value ? <IconCheck className="cd-icon" aria-label="chosen" /> : null}
    >
      {s.label}
    </Menu.Item>
  ));
}
